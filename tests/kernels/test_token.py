"""The token kernel against fp64: every reduction, shape and precision, and its determinism."""

from __future__ import annotations

import importlib
from itertools import pairwise

import pytest
import torch

pytest.importorskip("triton")

from deltalens.kernels import token_attribution
from deltalens.kernels.configs import TileConfig
from deltalens.kernels.parts import split_parts
from helpers.kernel_oracle import (
    DEVICE,
    DTYPES,
    SHAPES,
    SHIFT,
    normal,
    reduced,
    unread,
)

SMALL = TileConfig(rows=32, columns=16, depth=16, num_warps=4, num_stages=2)
PLAIN = ["sum", "abs", "positive", "max"]


def operands(tokens, d_model, n_latents, dtype, parts=1, seed=0):
    W_dec = normal(n_latents, d_model, seed=seed, dtype=dtype)
    grads, acts = (
        split_parts(normal(tokens, d_model, seed=seed + i), dtype, parts) for i in (1, 2)
    )
    return W_dec, grads, acts


def products(W_dec, grads, acts):
    x = W_dec.double() @ grads.double().sum(0).T
    y = W_dec.double() @ acts.double().sum(0).T
    return x * y


def assert_close(scores, exact, terms, tokens, d_model):
    """Within the roundings of two dot products and one sum, relative to Σ_t ‖x‖‖y‖‖d‖²."""
    assert scores.dtype == torch.float32
    budget = (2 * d_model + tokens + 4) * 2.0**-24 * terms
    assert torch.all((scores.double() - exact).abs() <= budget)


def magnitude(W_dec, grads, acts):
    size = grads.double().sum(0).norm(dim=1) @ acts.double().sum(0).norm(dim=1)
    return size * W_dec.double().square().sum(1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reduction", PLAIN)
@pytest.mark.parametrize(("tokens", "d_model", "n_latents"), SHAPES)
def test_every_reduction_is_that_of_the_products(tokens, d_model, n_latents, reduction, dtype):
    case = operands(tokens, d_model, n_latents, dtype)
    result = token_attribution(*case, reduction=reduction, squares=True, config=SMALL)
    exact = reduced(products(*case), reduction)
    assert_close(result.scores, exact, magnitude(*case), tokens, d_model)
    x = case[0].double() @ case[1].double().sum(0).T
    y = case[0].double() @ case[2].double().sum(0).T
    torch.testing.assert_close(result.sum_xx.double(), x.square().sum(1), rtol=1e-4, atol=1e-12)
    torch.testing.assert_close(result.sum_yy.double(), y.square().sum(1), rtol=1e-4, atol=1e-12)


def test_parts_add_up_to_what_one_half_precision_number_cannot_hold():
    W_dec, grads, acts = operands(20, 40, 50, torch.float16, parts=3)
    exact = reduced(products(W_dec, grads, acts), "sum")
    wide = normal(20, 40, seed=1), normal(20, 40, seed=2)
    unsplit = reduced(products(W_dec, wide[0][None], wide[1][None]), "sum")
    torch.testing.assert_close(exact, unsplit, rtol=1e-6, atol=1e-6)
    result = token_attribution(W_dec, grads, acts, config=SMALL)
    assert_close(result.scores, exact, magnitude(W_dec, grads, acts), 60, 120)


@pytest.mark.parametrize("one_launch", [True, False])
@pytest.mark.parametrize("offsets", [[0, 50], [0, 1, 2, 50], [0, 16, 32, 50], [0, 3, 47, 48, 50]])
def test_segments_give_mean_and_spread_over_their_sums(monkeypatch, offsets, one_launch):
    module = importlib.import_module("deltalens.kernels.token_attribution")
    monkeypatch.setattr(module, "compiles_segments", lambda *_: one_launch)
    case = operands(50, 33, 40, torch.float32)
    terms = products(*case)
    sums = torch.stack([terms[:, a:b].sum(1) for a, b in pairwise(offsets)])
    result = token_attribution(
        *case, reduction="segments", segments=torch.tensor(offsets), config=SMALL
    )
    size = magnitude(*case)
    assert_close(result.scores, sums.mean(0), size, 50, 33)
    spread = (sums - sums.mean(0)).square().sum(0)
    assert torch.all((result.spread.double() - spread).abs() <= 1e-5 * size.square())


def test_segments_dealt_out_to_several_programs_are_merged(monkeypatch):
    module = importlib.import_module("deltalens.kernels.token_attribution")
    monkeypatch.setattr(module, "split_count", lambda *_: 3)
    case = operands(90, 20, 10, torch.float32)
    offsets = torch.tensor([0, 40, 41, 60, 90])
    result = token_attribution(*case, reduction="segments", segments=offsets, config=SMALL)
    terms = products(*case)
    ends = offsets.tolist()
    sums = torch.stack([terms[:, a:b].sum(1) for a, b in pairwise(ends)])
    torch.testing.assert_close(result.scores.double(), sums.mean(0), rtol=1e-5, atol=1e-4)
    spread = (sums - sums.mean(0)).square().sum(0)
    torch.testing.assert_close(result.spread.double(), spread, rtol=1e-4, atol=1e-3)


def test_winners_in_first_last_and_boundary_rows():
    W_dec, grads, acts = operands(5, 24, 100, torch.float32)
    direction = acts[0, 0] / acts[0, 0].norm()
    grads[:] = acts[:] = direction
    planted = [0, 31, 32, 63, 64, 96, 99]
    for strength, latent in enumerate(planted, start=1):
        W_dec[latent] = 10 * strength * direction
    scores = token_attribution(W_dec, grads, acts, config=SMALL).scores
    assert scores.topk(len(planted)).indices.tolist() == planted[::-1]


def test_a_score_depends_on_no_other_row_and_no_repetition():
    W_dec, grads, acts = operands(40, 50, 100, torch.float32)
    whole = token_attribution(W_dec, grads, acts, config=SMALL).scores
    for _ in range(5):
        assert torch.equal(token_attribution(W_dec, grads, acts, config=SMALL).scores, whole)
    tail = token_attribution(W_dec[SHIFT:].clone(), grads, acts, config=SMALL).scores
    assert torch.equal(tail, whole[SHIFT:])


def test_elements_beyond_two_to_the_31_are_addressed():
    W_dec, grads, acts = operands(2, 16, 3, torch.float16)
    exact = reduced(products(W_dec, grads, acts), "sum")
    distant = unread(W_dec, (1 << 30) + 8)
    scores = token_attribution(distant, grads, acts, config=SMALL).scores
    assert_close(scores, exact, magnitude(W_dec, grads, acts), 2, 16)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reduction": "median"}, "reduction must be one of .* got 'median'"),
        ({"reduction": "segments"}, "segments must be given"),
        ({"segments": torch.tensor([0, 4])}, "segments must be given"),
        ({"reduction": "segments", "segments": torch.tensor([0, 3])}, "rise from 0 to the 4"),
        ({"reduction": "segments", "segments": torch.tensor([0, 3, 3, 4])}, "rise from 0"),
        ({"W_dec": torch.zeros(8, 5).T}, "contiguous rows"),
        ({"W_dec": torch.zeros(5, 9)}, "grads has d_model 8 but the decoder rows have 9"),
        ({"W_dec": torch.zeros(5, 8, dtype=torch.float64)}, "float32, bfloat16 or float16"),
        ({"acts": torch.zeros(1, 3, 8)}, "grads and acts must both be"),
        ({"acts": torch.zeros(1, 4, 8, dtype=torch.float16)}, "acts is torch.float16 on"),
    ],
)
def test_operands_that_do_not_fit_are_refused(change, message):
    fitting = {
        "W_dec": torch.zeros(5, 8),
        "grads": torch.zeros(1, 4, 8),
        "acts": torch.zeros(1, 4, 8),
    }
    arguments = {
        name: value.to(DEVICE) if isinstance(value, torch.Tensor) else value
        for name, value in (fitting | change).items()
    }
    with pytest.raises(ValueError, match=message):
        token_attribution(**arguments)
