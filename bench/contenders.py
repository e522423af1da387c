"""What is compared: the code one would write without this library, and the library."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

import deltalens

K = 100


@dataclass(frozen=True)
class Inputs:
    """Random rows and decoder of one shape."""

    acts: Tensor
    grads: Tensor
    W_dec: Tensor
    baseline: Tensor


def random_inputs(tokens: int, n_latents: int, d_model: int) -> Inputs:
    """Standard normal inputs with unit-scale decoder rows, the same on every call."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    return Inputs(
        normal(tokens, d_model),
        normal(tokens, d_model),
        normal(n_latents, d_model) / d_model**0.5,
        normal(d_model),
    )


def naive(inputs: Inputs) -> Tensor:
    """Materialise both products [tokens, n_latents], multiply, average, torch.topk."""
    x = inputs.grads @ inputs.W_dec.T
    y = (inputs.acts - inputs.baseline) @ inputs.W_dec.T
    return (-(x * y).mean(0)).topk(K).indices


def ours(form: str, impl: str) -> Callable[[Inputs], Tensor]:
    """:func:`deltalens.attribution_topk` with one form and implementation."""

    def run(inputs: Inputs) -> Tensor:
        top = deltalens.attribution_topk(
            inputs.acts,
            inputs.grads,
            inputs.W_dec,
            K,
            baseline=inputs.baseline,
            form=form,
            impl=impl,
        )
        assert top.certified
        return top.latents

    return run
