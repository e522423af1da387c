"""The encoder-gated kernel against fp64."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton")

from deltalens.kernels import latent_attribution
from deltalens.kernels.configs import TileConfig
from deltalens.kernels.parts import split_parts
from kernel_oracle import DEVICE, DTYPES, SHAPES, normal, reduced

SMALL = TileConfig(rows=32, columns=16, depth=16, num_warps=4, num_stages=2)


def exact_terms(W_dec, W_enc, grads, acts, bias, mean, threshold):
    pre = W_enc.double() @ acts.double().sum(0).T + bias.double()[:, None]
    cut = torch.as_tensor(0.0 if threshold is None else threshold, device=DEVICE).double()
    z = torch.where(pre > cut.reshape(-1, 1), pre, torch.zeros_like(pre))
    return (W_dec.double() @ grads.double().sum(0).T) * (z - mean.double()[:, None])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", ["relu", "jumprelu", "one threshold"])
@pytest.mark.parametrize(("tokens", "d_model", "n_latents"), SHAPES)
def test_activations_gate_the_gradient(tokens, d_model, n_latents, activation, dtype):
    W_dec, W_enc = (normal(n_latents, d_model, seed=i, dtype=dtype) for i in (0, 1))
    grads, acts = (split_parts(normal(tokens, d_model, seed=i), dtype, 2) for i in (2, 3))
    bias, mean, thresholds = (
        normal(n_latents, seed=i, dtype=torch.float32).abs() for i in (4, 5, 6)
    )
    threshold = {"relu": None, "jumprelu": thresholds, "one threshold": 0.7}[activation]
    terms = exact_terms(W_dec, W_enc, grads, acts, bias, mean, threshold)
    for reduction in ("sum", "abs", "positive", "max") if activation == "relu" else ("sum",):
        scores = latent_attribution(
            W_dec,
            W_enc,
            grads,
            acts,
            bias=bias,
            mean=mean,
            threshold=threshold,
            reduction=reduction,
            config=SMALL,
        )
        assert scores.dtype == torch.float32
        off = (scores.double() - reduced(terms, reduction)).abs()
        size = grads.double().sum(0).norm(dim=1) @ (
            acts.double().sum(0).norm(dim=1)[:, None] * W_enc.double().norm(dim=1)
            + bias.double()
            + mean.double()
        )
        budget = (4 * d_model + tokens + 8) * 2.0**-24 * size * W_dec.double().norm(dim=1)
        assert torch.all(off <= budget)


def test_rows_that_do_not_fit_are_refused():
    rows, vector = torch.zeros(4, 8, device=DEVICE), torch.zeros(4, device=DEVICE)
    tokens = torch.zeros(1, 2, 8, device=DEVICE)
    with pytest.raises(ValueError, match="W_enc must have the shape of W_dec"):
        latent_attribution(rows, rows[:3], tokens, tokens, bias=vector, mean=vector)
    with pytest.raises(ValueError, match=r"mean must be a contiguous float32 \[4\]"):
        latent_attribution(rows, rows, tokens, tokens, bias=vector, mean=vector[:2])
