"""The encoder-gated kernel against fp64, and the engine on it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

pytest.importorskip("triton")

from deltalens.engine import (
    gated_attribution,
    gated_attribution_topk,
)
from deltalens.engine.latent import scan as latent_scan
from deltalens.engine.latent.attribution import gated_problem
from deltalens.kernels import latent_attribution
from deltalens.kernels.configs import TileConfig
from deltalens.kernels.parts import split_parts
from helpers.kernel_oracle import (
    DEVICE,
    DTYPES,
    SHAPES,
    normal,
    reduced,
)
from helpers.latent_oracle import (
    KINDS,
    LatentCase,
    latent_case,
    tied_case,
)

SMALL = TileConfig(rows=32, columns=16, depth=16, num_warps=4, num_stages=2)
REDUCTIONS = ("sum", "abs", "positive", "max")

dtypes = pytest.mark.parametrize("dtype", DTYPES)
kinds = pytest.mark.parametrize("kind", KINDS)


def vectors(n_latents: int, tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
    """All that opens latents, some of it never and some of it always; slopes and norms of 0."""
    latents = normal(6, n_latents, seed=4, dtype=torch.float32)
    latents[0].abs_()
    latents[2, ::3] = -torch.inf
    latents[4:] = 0
    of_tokens = normal(3, tokens, seed=5, dtype=torch.float32)
    of_tokens[0, ::2] = -torch.inf
    return latents, of_tokens


def exact_terms(W_dec, W_enc, grads, acts, latents, of_tokens):
    scale, bias, cut, mean = latents[:4].double()[:, :, None]
    u = W_enc.double() @ acts.double().sum(0).T
    p = scale * u + bias
    z = p.clamp(min=0) * ((u > cut) & (p > of_tokens[0].double()))
    return (W_dec.double() @ grads.double().sum(0).T) * (z - mean)


@dtypes
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize(("tokens", "d_model", "n_latents"), SHAPES)
def test_gates_open_as_in_fp64(tokens, d_model, n_latents, reduction, dtype):
    W_dec, W_enc = (normal(n_latents, d_model, seed=i, dtype=dtype) for i in (0, 1))
    grads, acts = (split_parts(normal(tokens, d_model, seed=i), dtype, 2) for i in (2, 3))
    latents, of_tokens = vectors(n_latents, tokens)
    found = latent_attribution(
        W_dec,
        W_enc,
        grads,
        acts,
        latents=latents,
        tokens=of_tokens,
        reduction=reduction,
        config=SMALL,
    )
    assert found.errors is None
    terms = exact_terms(W_dec, W_enc, grads, acts, latents, of_tokens)
    off = (found.scores.double() - reduced(terms, reduction)).abs()
    scale, bias, _, mean = latents[:4].double().abs()
    size = grads.double().sum(0).norm(dim=1) @ (
        acts.double().sum(0).norm(dim=1)[:, None] * W_enc.double().norm(dim=1) * scale + bias + mean
    )
    budget = (4 * d_model + tokens + 8) * 2.0**-24 * size * W_dec.double().norm(dim=1)
    assert torch.all(off <= budget)


def on_device(case: LatentCase) -> LatentCase:
    moved = {
        name: value.to(DEVICE)
        for name, value in vars(case).items()
        if isinstance(value, torch.Tensor)
    }
    return replace(case, **moved)


def check_intervals(case: LatentCase, reduction: str) -> None:
    found = gated_problem(**case.arguments(), impl="triton", reduction=reduction)
    scorer = found.scorer()
    for start, tile in latent_scan.tiles(found):
        scores, error, _ = latent_scan.scored(found, scorer, start, tile, bounds=True)
        exact = case.scores(reduction)[start : start + len(scores)]
        assert torch.all((scores - exact).abs() <= error)


@kinds
@dtypes
def test_the_engine_on_every_kind_of_encoder(kind, dtype):
    case = on_device(latent_case(kind, 40, 50, 72, dtype=dtype))
    tokens, d_model = case.inputs.shape
    for reduction in REDUCTIONS:
        scores = gated_attribution(**case.arguments(), reduction=reduction, impl="triton")
        budget = (4 * d_model + tokens + 8) * 2.0**-24 * case.sizes() + 2.0**-60
        assert torch.all((scores.double() - case.scores(reduction)).abs() <= budget)
        check_intervals(case, reduction)
    check_intervals(on_device(tied_case(kind)), "sum")
    exact = case.scores()
    top = gated_attribution_topk(**case.arguments(), k=10, impl="triton")
    assert top.certified
    assert set(top.latents.tolist()) == set(exact.argsort(descending=True)[:10].tolist())
    assert torch.all((top.scores.double() - exact[top.latents]).abs() <= top.error_bound)


def test_matrices_of_two_dtypes_meet_in_fp32():
    case = on_device(latent_case("threshold", 20, 30, 40))
    case = replace(case, W_dec=case.W_dec.half())
    scores = gated_attribution(**case.arguments(), impl="triton")
    budget = (4 * 30 + 20 + 8) * 2.0**-24 * case.sizes()
    assert torch.all((scores.double() - case.scores()).abs() <= budget)


def test_what_does_not_fit_is_refused():
    rows, tokens = torch.zeros(4, 8, device=DEVICE), torch.zeros(1, 2, 8, device=DEVICE)
    given = {
        "latents": torch.zeros(6, 4, device=DEVICE),
        "tokens": torch.zeros(3, 2, device=DEVICE),
    }
    with pytest.raises(ValueError, match="W_enc must have the shape of W_dec"):
        latent_attribution(rows, rows[:3], tokens, tokens, **given)
    with pytest.raises(ValueError, match=r"latents must be a contiguous float32 \[6, 4\]"):
        latent_attribution(rows, rows, tokens, tokens, **{**given, "latents": given["tokens"]})
    with pytest.raises(ValueError, match="reduction must be one of"):
        latent_attribution(rows, rows, tokens, tokens, **given, reduction="mean")
