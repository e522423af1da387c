"""The quadratic-form kernel against fp64."""

from __future__ import annotations

import importlib

import pytest
import torch

pytest.importorskip("triton")

from deltalens.kernels import fold_symmetric, quadratic_form
from deltalens.kernels.configs import TileConfig
from deltalens.kernels.parts import split_parts
from deltalens.kernels.row_norms import row_norms
from helpers.kernel_oracle import (
    DTYPES,
    SHAPES,
    SHIFT,
    normal,
    unread,
)

SMALL = TileConfig(rows=32, columns=32, depth=16, num_warps=4, num_stages=2, chain=32)


def symmetric(count, d_model, seed=0):
    moments = normal(count, d_model, d_model, seed=seed)
    return moments + moments.mT


def folded(moments, dtype, parts=1):
    return split_parts(fold_symmetric(moments), dtype, parts).transpose(0, 1)


def exact_scores(W_dec, lower):
    rows = W_dec.double()
    return torch.stack([((rows @ one.double().sum(0).T) * rows).sum(1) for one in lower])


def magnitude(W_dec, lower):
    rows = W_dec.double().abs()
    return torch.stack([((rows @ one.double().abs().sum(0).T) * rows).sum(1) for one in lower])


def assert_close(scores, W_dec, lower, parts=1):
    assert scores.dtype == torch.float32
    budget = (2 * parts * W_dec.shape[1] + 4) * 2.0**-24 * magnitude(W_dec, lower)
    assert torch.all((scores.double() - exact_scores(W_dec, lower)).abs() <= budget)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize(("n_latents", "d_model"), sorted({shape[1:] for shape in SHAPES}))
def test_scores_are_those_of_every_moment(n_latents, d_model, count, dtype):
    W_dec = normal(n_latents, d_model, seed=1, dtype=dtype)
    lower = folded(symmetric(count, d_model), dtype)
    assert_close(quadratic_form(W_dec, lower, config=SMALL), W_dec, lower)


def test_folding_keeps_the_form_and_leaves_nothing_above_the_diagonal():
    moments, rows = symmetric(2, 30), normal(10, 30, seed=2)
    lower = fold_symmetric(moments)
    assert torch.equal(lower, lower.tril())
    torch.testing.assert_close(
        torch.einsum("nj,bjk,nk->bn", rows, lower, rows),
        torch.einsum("nj,bjk,nk->bn", rows, moments, rows),
    )


def test_three_half_precision_parts_hold_what_fp32_does():
    moments = symmetric(1, 70)
    W_dec = normal(40, 70, seed=3, dtype=torch.float16)
    lower = folded(moments, torch.float16, parts=3)
    scores = quadratic_form(W_dec, lower, config=SMALL)
    whole = fold_symmetric(moments)[:, None]
    assert_close(scores, W_dec, whole, parts=3)


@pytest.mark.parametrize("splits", [1, 2, 3, 5])
def test_columns_dealt_out_to_several_programs_are_each_counted_once(splits, monkeypatch):
    module = importlib.import_module("deltalens.kernels.quadratic_form")
    monkeypatch.setattr(module, "split_count", lambda *_: splits)
    W_dec = normal(40, 150, seed=4, dtype=torch.float32)
    lower = folded(symmetric(1, 150), torch.float32)
    assert_close(quadratic_form(W_dec, lower, config=SMALL), W_dec, lower)


def test_a_score_depends_on_no_other_row_and_no_repetition():
    W_dec = normal(100, 50, seed=5, dtype=torch.float32)
    lower = folded(symmetric(2, 50), torch.float32)
    whole = quadratic_form(W_dec, lower, config=SMALL)
    for _ in range(5):
        assert torch.equal(quadratic_form(W_dec, lower, config=SMALL), whole)
    tail = quadratic_form(W_dec[SHIFT:].clone(), lower, config=SMALL)
    assert torch.equal(tail, whole[:, SHIFT:])


def test_elements_beyond_two_to_the_31_are_addressed():
    W_dec = normal(3, 16, seed=6, dtype=torch.float16)
    lower = folded(symmetric(1, 16), torch.float16)
    distant = unread(W_dec, (1 << 30) + 8)
    assert_close(quadratic_form(distant, lower, config=SMALL), W_dec, lower)
    torch.testing.assert_close(row_norms(distant), W_dec.double().norm(dim=1))


@pytest.mark.parametrize(("n_latents", "d_model"), [(1, 1), (17, 300), (40, 256)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_row_norms_are_exact_to_fp64(n_latents, d_model, dtype):
    W_dec = normal(n_latents, d_model, seed=7, dtype=dtype)
    expected = torch.linalg.vector_norm(W_dec, dim=1, dtype=torch.float64)
    torch.testing.assert_close(row_norms(W_dec), expected, rtol=1e-14, atol=0)


def test_moments_of_another_width_are_refused():
    with pytest.raises(ValueError, match=r"L must be \[B, parts, 8, 8\]"):
        quadratic_form(torch.zeros(4, 8), torch.zeros(1, 1, 9, 8))
