"""What every implementation of both forms must satisfy, against the extended-precision oracle."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

import deltalens
from deltalens.engine.cost.planner import tile_rows
from helpers.engine_oracle import (
    FORMS,
    IMPLS,
    SlicedDecoder,
    brute_force_topk,
    random_case,
)

SHAPES = [(1, 1, 1), (1, 7, 3), (3, 5, 7), (64, 33, 255), (130, 300, 507), (2049, 64, 123)]
DTYPES = [torch.float32, torch.bfloat16, torch.float16]

implementations = pytest.mark.parametrize("impl", IMPLS)
forms = pytest.mark.parametrize("form", FORMS)


@implementations
@forms
@pytest.mark.parametrize(("tokens", "d_model", "n_latents"), SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_scores_are_within_the_error_budget(impl, form, tokens, d_model, n_latents, dtype):
    """At most twice what the obvious fp32 code loses, and one rounding of the largest score.

    Errors are relative to Σ|wxy| and taken over as many random cases as make a few hundred scores.
    """
    ours, plain, rounding = [], [], []
    for seed in range(max(1, 300 // (tokens * n_latents))):
        case = random_case(tokens, d_model, n_latents, dtype=dtype, seed=seed)
        scores = deltalens.attribution(
            case.acts, case.grads, case.W_dec, form=form, impl=impl, **case.arguments()
        )
        assert scores.dtype == torch.float32
        assert scores.shape == (n_latents,)
        exact, scale = case.exact(), case.magnitude()
        ours.append(np.abs(scores.double().numpy() - exact) / scale)
        plain.append(np.abs(case.plain_fp32() - exact) / scale)
        rounding.append(2.0**-24 * np.abs(exact) / scale)
        if form == "quadratic":
            # S is rounded before the decoder is known: on the scale of Σ|w|‖γ‖‖a − ā‖‖d‖².
            rounding.append(2.0**-24 * case.norm_product() / scale)
    largest = [np.concatenate(errors).max() for errors in (ours, plain, rounding)]
    assert largest[0] <= 2 * (largest[1] + largest[2])


@implementations
@forms
@pytest.mark.parametrize("normalize", [False, True])
def test_rows_of_any_finite_size_are_scored_where_the_score_fits(impl, form, normalize):
    """Products of such rows overflow or vanish in fp32."""
    case = random_case(40, 90, 600)
    sizes = torch.logspace(-30, 36, 600)[torch.randperm(600)]
    shrunk = 1.0 if normalize else 1e-19
    case = replace(
        case,
        acts=case.acts * shrunk,
        baseline=case.baseline * shrunk,
        grads=case.grads * shrunk,
        W_dec=case.W_dec * sizes[:, None],
    )
    scores = deltalens.attribution(
        case.acts, case.grads, case.W_dec, form=form, impl=impl, normalize=normalize,
        **case.arguments(),
    )  # fmt: skip
    size = case.W_dec.double().norm(dim=1).numpy() ** 2 if normalize else 1.0
    exact, scale = case.exact() / size, case.norm_product() / size
    fits = (np.abs(exact) < 3e38) & (np.abs(exact) > 1e-37)
    assert fits.sum() > 300
    error = np.abs(scores.double().numpy() - exact) / scale
    assert error[fits].max() <= 1e-6


@implementations
@pytest.mark.parametrize("reduction", ["abs", "positive", "max"])
def test_what_overflows_is_dropped_by_no_reduction(impl, reduction):
    case = random_case(40, 90, 300)
    sizes = torch.logspace(2, 36, 300)[torch.randperm(300)]
    case = replace(
        case, acts=case.acts * 1e-20, baseline=case.baseline * 1e-20, grads=case.grads * 1e-18,
        W_dec=case.W_dec * sizes[:, None],
    )  # fmt: skip
    terms = case.terms()
    exact = {"abs": np.abs(terms).sum(1), "positive": terms.clip(min=0).sum(1), "max": terms.max(1)}
    exact = exact[reduction].astype(np.float64)
    given = {"impl": impl, "reduction": reduction, **case.arguments()}
    scores = deltalens.attribution(case.acts, case.grads, case.W_dec, **given)
    fits = np.abs(exact) < 3e38
    error = np.abs(scores.double().numpy() - exact) / case.norm_product()
    assert error[fits].max() <= 1e-6
    top = deltalens.attribution_topk(case.acts, case.grads, case.W_dec, 20, **given)
    assert top.latents.tolist() == brute_force_topk(exact, 20).tolist()
    assert top.certified


@implementations
@forms
def test_defaults_are_no_baseline_and_equal_weights(impl, form):
    case = random_case(37, 20, 50)
    expected = deltalens.attribution(
        case.acts,
        case.grads,
        case.W_dec,
        baseline=torch.zeros(20),
        weights=torch.full((37,), 1 / 37),
        impl="reference",
        form="token",
    )
    scores = deltalens.attribution(case.acts, case.grads, case.W_dec, form=form, impl=impl)
    torch.testing.assert_close(scores, expected, rtol=1e-5, atol=1e-6)


@implementations
@forms
def test_a_latent_whose_removal_lowers_the_log_probability_ranks_first(impl, form):
    """The sign test, on a softmax whose first logit grows along a planted direction."""
    generator = torch.Generator().manual_seed(1)
    W_dec = torch.nn.functional.normalize(torch.randn(200, 48, generator=generator))
    planted = 137
    unembedding = 0.1 * torch.randn(10, 48, generator=generator)
    unembedding[0] += W_dec[planted]
    acts = torch.randn(30, 48, generator=generator) * 0.1 + 2.0 * W_dec[planted]

    def log_probability(rows: Tensor) -> Tensor:
        return torch.log_softmax(rows @ unembedding.T, dim=1)[:, 0].sum()

    leaf = acts.clone().requires_grad_()
    (grads,) = torch.autograd.grad(-log_probability(leaf), leaf)
    ablated = acts - (acts @ W_dec[planted])[:, None] * W_dec[planted]
    assert log_probability(ablated) < log_probability(acts)

    scores, latents = deltalens.attribution_topk(acts, grads, W_dec, 5, form=form, impl=impl)
    assert latents[0] == planted
    assert scores[0] > 0


@forms
def test_decoder_larger_than_one_tile_has_no_seam(form):
    rows = tile_rows(8)
    case = random_case(5, 8, 2 * rows + 3)
    scores = deltalens.attribution(
        case.acts, case.grads, case.W_dec, form=form, impl="torch", **case.arguments()
    )
    bound = 1e-5 * case.magnitude() + 1e-6
    assert np.all(np.abs(scores.double().numpy() - case.exact()) <= bound)


@forms
def test_decoder_objects_score_as_their_tensor_and_are_read_by_tiles(form):
    case = random_case(9, 64, 40_000)
    decoder = SlicedDecoder(case.W_dec)
    from_object = deltalens.attribution(case.acts, case.grads, decoder, form=form)
    from_tensor = deltalens.attribution(case.acts, case.grads, case.W_dec, form=form)
    assert torch.equal(from_object, from_tensor)
    assert decoder.largest_slice <= tile_rows(64) < 40_000


@implementations
@forms
def test_runs_are_bitwise_repeatable(impl, form):
    case = random_case(70, 300, 400)
    runs = [
        deltalens.attribution(case.acts, case.grads, case.W_dec, form=form, impl=impl)
        for _ in range(20)
    ]
    assert all(torch.equal(run, runs[0]) for run in runs)


@implementations
@forms
def test_normalize_scores_the_unit_rows(impl, form):
    case = random_case(40, 24, 60)
    W_dec = case.W_dec * torch.linspace(0.1, 30, 60)[:, None]
    W_dec[7] = 0
    normalized = deltalens.attribution(
        case.acts, case.grads, W_dec, form=form, impl=impl, normalize=True
    )
    unit = torch.nn.functional.normalize(W_dec.double()).float()
    expected = deltalens.attribution(case.acts, case.grads, unit, form="token", impl="reference")
    torch.testing.assert_close(normalized, expected, rtol=2e-5, atol=2e-5)
    assert normalized[7] == 0


@implementations
@forms
def test_nonfinite_rows_score_nan_and_are_named(impl, form):
    case = random_case(10, 16, 100)
    case.W_dec[3, 5] = torch.nan
    case.W_dec[99, 0] = torch.inf
    with pytest.warns(UserWarning, match=r"2 rows with NaN or infinity.*first: 3, 99"):
        scores = deltalens.attribution(case.acts, case.grads, case.W_dec, form=form, impl=impl)
    assert scores.isnan().nonzero()[:, 0].tolist() == [3, 99]


@forms
def test_rows_in_other_precisions_are_read_exactly(form):
    case = random_case(33, 40, 50)
    for dtype in (torch.float64, torch.bfloat16, torch.float16):
        acts, grads = case.acts.to(dtype), case.grads.to(dtype)
        scores = deltalens.attribution(acts, grads, case.W_dec, form=form, impl="torch")
        exact = deltalens.attribution(
            acts.double(), grads.double(), case.W_dec, form="token", impl="reference"
        )
        torch.testing.assert_close(scores, exact, rtol=1e-5, atol=1e-5)


def test_scores_ignore_the_process_wide_matmul_precision_and_restore_it():
    case = random_case(300, 512, 256)
    expected = deltalens.attribution(case.acts, case.grads, case.W_dec)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            scores = deltalens.attribution(case.acts, case.grads, case.W_dec)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)
    assert torch.equal(scores, expected)
