"""What is compared: the code one would write without this library, and the library."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

import deltalens

CHUNK = 4096  # latents at a time in chunked code

Work = Callable[["Inputs"], Tensor | None]  # the top-k, if it ends in one


@dataclass(frozen=True)
class Inputs:
    """Random rows and decoder of one shape."""

    acts: Tensor
    grads: Tensor
    W_dec: Tensor
    baseline: Tensor
    k: int

    @property
    def centred(self) -> Tensor:
        return self.acts - self.baseline


def random_inputs(
    tokens: int, n_latents: int, d_model: int, k: int = 100, dtype: torch.dtype = torch.float32
) -> Inputs:
    """Standard normal inputs with unit-scale decoder rows, the same on every call."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    W_dec = torch.empty(n_latents, d_model, dtype=dtype)
    for part in W_dec.split(1 << 16):
        part.copy_(normal(*part.shape) / d_model**0.5)
    return Inputs(normal(tokens, d_model), normal(tokens, d_model), W_dec, normal(d_model), k)


@dataclass(frozen=True)
class Contender:
    """One way to the result; ``form`` says what it must compute: token, quadratic, or the latter's
    scan alone."""

    form: str
    work: Work
    dtype: torch.dtype | None = None  # of its own decoder; None for the shape's

    def flop(self, inputs: Inputs) -> float:
        """What the form costs when neither symmetry nor parts are counted."""
        tokens, (n_latents, d_model) = len(inputs.acts), inputs.W_dec.shape
        return {
            "token": 4.0 * tokens * n_latents * d_model,
            "quadratic": 2.0 * (tokens + n_latents) * d_model**2,
            "scan": 2.0 * n_latents * d_model**2,
        }[self.form]


def naive(inputs: Inputs) -> Tensor:
    """Materialise both products [tokens, n_latents], multiply, average, torch.topk."""
    x = inputs.grads @ inputs.W_dec.float().T
    y = inputs.centred @ inputs.W_dec.float().T
    return (-x.mul_(y).mean(0)).topk(inputs.k).indices


def _token_step(rows: Tensor, grads: Tensor, acts: Tensor) -> Tensor:
    return -((rows @ grads.T) * (rows @ acts.T)).mean(1)


def _quadratic_step(rows: Tensor, moment: Tensor) -> Tensor:
    return ((rows @ moment) * rows).sum(1)


def _top(step: Callable[..., Tensor], inputs: Inputs, *operands: Tensor) -> Tensor:
    parts = [step(rows.float(), *operands) for rows in inputs.W_dec.split(CHUNK)]
    return torch.cat(parts).topk(inputs.k).indices


def chunked(inputs: Inputs) -> Tensor:
    """The naive code over CHUNK latents at a time."""
    return _top(_token_step, inputs, inputs.grads, inputs.centred)


def compiled(inputs: Inputs) -> Tensor:
    """The same by torch.compile."""
    return _top(torch.compile(_token_step), inputs, inputs.grads, inputs.centred)


def moment_of(inputs: Inputs) -> deltalens.CrossMoment:
    """S of all rows, as the library accumulates it."""
    moment = deltalens.CrossMoment(inputs.acts.shape[1])
    moment.add(inputs.acts, inputs.grads, baseline=inputs.baseline)
    return moment


def dense_quadratic(moment: deltalens.CrossMoment) -> Work:
    """The scan with S in plain PyTorch: chunks of W_dec @ S in fp32, times W_dec, torch.topk."""
    matrix = moment.matrix.float()
    return lambda inputs: _top(_quadratic_step, inputs, matrix)


def scan(moment: deltalens.CrossMoment, impl: str) -> Work:
    """:meth:`deltalens.CrossMoment.topk`, the exact top-k by S."""

    def run(inputs: Inputs) -> Tensor:
        top = moment.topk(inputs.W_dec, inputs.k, impl=impl)
        assert top.certified
        return top.latents

    return run


def dots_only(inputs: Inputs) -> None:
    """The two products in chunks and nothing else: the floor of the token form in PyTorch."""
    centred = inputs.centred
    for rows in inputs.W_dec.split(CHUNK):
        rows.float() @ inputs.grads.T
        rows.float() @ centred.T


def one_matmul(inputs: Inputs) -> None:
    """W_dec @ S whole, its result kept: the dense product that the quadratic form stands for."""
    inputs.W_dec @ inputs.acts[: inputs.W_dec.shape[1]].T


def _library(inputs: Inputs, form: str, impl: str) -> Tensor:
    top = deltalens.attribution_topk(
        inputs.acts,
        inputs.grads,
        inputs.W_dec,
        inputs.k,
        baseline=inputs.baseline,
        form=form,
        impl=impl,
    )
    assert top.certified
    return top.latents


def library(form: str, impl: str) -> Work:
    """:func:`deltalens.attribution_topk` with one form and implementation."""
    return partial(_library, form=form, impl=impl)


def on_bfloat16(W_dec: Tensor, contender: Contender) -> Contender:
    """The same on this decoder in bfloat16, whatever decoder it is given."""
    rounded = W_dec.bfloat16()
    return Contender(
        contender.form,
        lambda inputs: contender.work(replace(inputs, W_dec=rounded)),
        torch.bfloat16,
    )


CONTENDERS = {
    "PyTorch, naive": Contender("token", naive),
    "PyTorch, chunked": Contender("token", chunked),
    "torch.compile, chunked": Contender("token", compiled),
    "PyTorch, products only": Contender("token", dots_only),
    "torch token": Contender("token", library("token", "torch")),
    "C++ token": Contender("token", library("token", "cpp")),
    "torch quadratic": Contender("quadratic", library("quadratic", "torch")),
    "C++ quadratic": Contender("quadratic", library("quadratic", "cpp")),
}
