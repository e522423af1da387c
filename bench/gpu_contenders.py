"""What is compared on a GPU: plain PyTorch, the kernels by themselves, and the library."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

import deltalens
from deltalens.kernels import fold_symmetric, quadratic_form, token_attribution
from deltalens.kernels.parts import split_parts
from gpu_device import DEVICE, Work

K = 100
CHUNK = 16_384  # latents at a time in chunked code


@dataclass(frozen=True)
class Inputs:
    """Rows in fp32 and a decoder, on the device."""

    acts: Tensor
    grads: Tensor
    W_dec: Tensor

    @property
    def half(self) -> tuple[Tensor, Tensor]:
        """Gradients and activations in the decoder's dtype."""
        return self.grads.to(self.W_dec.dtype), self.acts.to(self.W_dec.dtype)


def random_inputs(tokens: int, n_latents: int, d_model: int, dtype: torch.dtype) -> Inputs:
    """Standard normal rows, unit-scale decoder rows; made on the device, the same every time."""
    generator = torch.Generator(DEVICE).manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, device=DEVICE)

    W_dec = torch.empty(n_latents, d_model, dtype=dtype, device=DEVICE)
    for part in W_dec.split(CHUNK):
        part.copy_(normal(*part.shape) / d_model**0.5)
    return Inputs(normal(tokens, d_model), normal(tokens, d_model), W_dec)


def token_step(rows: Tensor, grads: Tensor, acts: Tensor) -> Tensor:
    """The scores of some latents, both products materialised."""
    return -((rows @ grads.T).float() * (rows @ acts.T).float()).mean(1)


def quadratic_step(rows: Tensor, moment: Tensor) -> Tensor:
    """The same by S, with the product materialised."""
    return ((rows @ moment).float() * rows.float()).sum(1)


def chunked(step: Callable[..., Tensor], inputs: Inputs, *operands: Tensor) -> Tensor:
    """``step`` over CHUNK latents at a time."""
    return torch.cat([step(rows, *operands) for rows in inputs.W_dec.split(CHUNK)])


def products_only(inputs: Inputs, *operands: Tensor) -> None:
    """The matrix products of a form and nothing else: its floor in PyTorch."""
    for rows in inputs.W_dec.split(CHUNK):
        for operand in operands:
            rows @ operand


def moment_of(inputs: Inputs) -> Tensor:
    """S in fp64, without its rounding to the decoder's dtype."""
    outer = (-inputs.grads / len(inputs.grads)).double().T @ inputs.acts.double()
    return (outer + outer.T) / 2


def token_contenders(inputs: Inputs, naive: bool) -> dict[str, Work]:
    """Everything that costs 4·N·R·d. ``naive``: both whole products fit the device."""
    grads, acts = inputs.half
    parts = {
        n: [split_parts(x, acts.dtype, n) for x in (inputs.grads, inputs.acts)] for n in (1, 3)
    }
    compiled = torch.compile(token_step)
    contenders: dict[str, Work] = {
        "torch, products only": lambda: products_only(inputs, grads.T, acts.T),
        "torch, chunked": lambda: chunked(token_step, inputs, grads, acts),
        "torch.compile, chunked": lambda: chunked(compiled, inputs, grads, acts),
        "kernel": lambda: token_attribution(inputs.W_dec, *parts[1]),
        "kernel, with squares": lambda: token_attribution(inputs.W_dec, *parts[1], squares=True),
        "kernel, three parts": lambda: token_attribution(inputs.W_dec, *parts[3]),
        "library, top 100": lambda: library(inputs, "token"),
    }
    if naive:
        contenders["torch, naive"] = lambda: token_step(inputs.W_dec, grads, acts).topk(K)
    return contenders


def quadratic_contenders(inputs: Inputs) -> dict[str, Work]:
    """Everything that costs at most 2·N·d²."""
    moment = moment_of(inputs)
    half, dtype = moment.to(inputs.W_dec.dtype), inputs.W_dec.dtype
    lower = {n: split_parts(fold_symmetric(moment), dtype, n)[None] for n in (1, 3)}
    compiled = torch.compile(quadratic_step)
    return {
        "torch, product only": lambda: products_only(inputs, half),
        "torch, chunked": lambda: chunked(quadratic_step, inputs, half),
        "torch.compile, chunked": lambda: chunked(compiled, inputs, half),
        "kernel": lambda: quadratic_form(inputs.W_dec, lower[1]),
        "kernel, three parts": lambda: quadratic_form(inputs.W_dec, lower[3]),
        "library, top 100": lambda: library(inputs, "quadratic"),
    }


def library(inputs: Inputs, form: str) -> None:
    """:func:`deltalens.attribution_topk`, which returns the exact top-k."""
    top = deltalens.attribution_topk(
        inputs.acts, inputs.grads, inputs.W_dec, K, form=form, impl="triton"
    )
    assert top.certified
