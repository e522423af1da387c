"""Encoder-gated top-k attribution: latents materialised in PyTorch against the tile kernels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import pytest
import torch
from torch import Tensor

import deltalens
from contenders import Contender, Inputs, random_inputs
from deltalens.engine import as_decoder
from deltalens.sae.encoding import Activation, Encoding, Threshold, TopK
from suite import measure_shape

BASELINE = "PyTorch, naive"
KEPT = 32  # of TopK
# tokens, latents, d_model; naive code needs 8 bytes · tokens · latents.
SHAPES = [(1024, 16_384, 768), (4096, 16_384, 768), (1024, 65_536, 768), (1024, 16_384, 2304)]


@dataclass(frozen=True)
class LatentInputs(Inputs):
    """A decoder with an encoder of one kind."""

    encoding: Encoding


def latent_inputs(shape: tuple[int, int, int], kind: str) -> LatentInputs:
    given = random_inputs(*shape)
    _, n_latents, d_model = shape
    generator = torch.Generator().manual_seed(1)
    W_enc = given.W_dec + torch.randn(n_latents, d_model, generator=generator) / d_model**0.5
    threshold = Threshold(torch.full((n_latents,), 2.0))
    activation: Activation = TopK(KEPT) if kind == "topk" else threshold
    encoding = Encoding(
        as_decoder(W_enc), torch.zeros(n_latents), torch.zeros(d_model), activation, False
    )
    return LatentInputs(**vars(given), encoding=encoding)


def naive(inputs: LatentInputs) -> Tensor:
    """Materialise z and γ·d [tokens, n_latents], multiply, average, torch.topk."""
    u = inputs.acts @ inputs.encoding.W_enc.rows(0, len(inputs.W_dec)).T
    if isinstance(inputs.encoding.activation, TopK):
        kept = u.topk(KEPT, dim=1)
        z = torch.zeros_like(u).scatter_(1, kept.indices, kept.values.relu())
    else:
        z = torch.where(u > 2.0, u, 0.0)
    return (-(inputs.grads @ inputs.W_dec.T).mul_(z).mean(0)).topk(inputs.k).indices


def library(inputs: LatentInputs, impl: str) -> Tensor:
    top = deltalens.latent_attribution_topk(
        inputs.acts, inputs.grads, inputs.W_dec, inputs.encoding, inputs.k, impl=impl
    )
    assert top.certified
    return top.latents


CONTENDERS = {
    BASELINE: Contender("token", naive),
    "torch": Contender("token", partial(library, impl="torch")),
    "C++": Contender("token", partial(library, impl="cpp")),
}


@pytest.mark.parametrize("kind", ["threshold", "topk"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_latent(benchmark, report, meter, shape, kind):
    inputs = latent_inputs(shape, kind)
    rows = measure_shape(benchmark, meter, inputs, CONTENDERS, baseline=BASELINE, rounds=3)
    report([row | {"form": f"latent, {kind}"} for row in rows])
