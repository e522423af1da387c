"""Reductions over tokens other than the sum, and statistics over segments, by brute force."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import deltalens
from deltalens.engine import token_rows
from deltalens.engine.numerics.extension import cpu_extension
from deltalens.engine.trust.implementations import choose_impl
from helpers.engine_oracle import (
    IMPLS,
    Case,
    brute_force_topk,
    random_case,
)

SHAPES = [(1, 1, 1), (3, 5, 7), (130, 70, 60), (1037, 33, 45)]
REDUCED = {
    "sum": lambda terms: terms.sum(1),
    "abs": lambda terms: np.abs(terms).sum(1),
    "positive": lambda terms: np.maximum(terms, 0).sum(1),
    "max": lambda terms: terms.max(1),
}


def available(impl: str) -> str:
    try:
        return choose_impl(impl, "cpu")
    except deltalens.InputError as error:
        pytest.skip(str(error))


@pytest.fixture(params=[*IMPLS, "triton"])
def impl(request):
    return available(request.param)


@pytest.fixture(params=["held", "grouped"])
def groups(request, monkeypatch):
    if request.param == "grouped":
        monkeypatch.setattr(token_rows, "GROUP_BYTES", 1)  # the least: 128 tokens


reductions = pytest.mark.parametrize("reduction", REDUCED)


def exact(case: Case, reduction: str) -> np.ndarray:
    return REDUCED[reduction](case.terms()).astype(np.float64)


def negated(case: Case) -> Case:
    """All terms negative, so that a zero would be their maximum."""
    return Case(
        case.acts, -(case.acts - case.baseline), case.W_dec, case.baseline, -case.weights.abs()
    )


@reductions
@pytest.mark.parametrize(("tokens", "d_model", "n_latents"), SHAPES)
def test_scores_are_the_reduced_terms(impl, groups, reduction, tokens, d_model, n_latents):
    for case in (
        random_case(tokens, d_model, n_latents),
        negated(random_case(tokens, d_model, n_latents)),
    ):
        scores = deltalens.attribution(
            case.acts,
            case.grads,
            case.W_dec,
            impl=impl,
            reduction=reduction,
            form="token",
            **case.arguments(),
        )
        truth, magnitude = exact(case, reduction), case.magnitude()
        if reduction == "max":
            magnitude = np.abs(case.terms()).max(1).astype(np.float64) + magnitude / tokens
        plain = np.abs(REDUCED[reduction](_plain_terms(case)) - truth) / magnitude
        off = np.abs(scores.double().numpy() - truth) / magnitude
        assert off.max() <= 2 * (plain.max() + 2.0**-24 * 3)


def _plain_terms(case: Case) -> np.ndarray:
    """The obvious fp32 code, [n_latents, tokens]."""
    x = case.W_dec @ case.grads.T
    y = case.W_dec @ (case.acts - case.baseline).T
    return -(case.weights * x * y).double().numpy()


@reductions
@pytest.mark.parametrize("largest", [True, False])
@pytest.mark.parametrize("normalize", [True, False])
def test_the_topk_is_exact(impl, groups, reduction, largest, normalize):
    case = random_case(150, 40, 300, seed=5)
    top = deltalens.attribution_topk(
        case.acts,
        case.grads,
        case.W_dec,
        20,
        impl=impl,
        reduction=reduction,
        form="token",
        largest=largest,
        normalize=normalize,
        **case.arguments(),
    )
    truth = exact(case, reduction)
    if normalize:
        truth = truth / case.W_dec.double().square().sum(1).numpy()
    assert top.certified
    assert top.latents.tolist() == brute_force_topk(truth, 20, largest=largest).tolist()
    off = np.abs(top.scores.double().numpy() - truth[top.latents])
    assert np.all(off <= top.error_bound.numpy())


@reductions
@pytest.mark.parametrize("impl_name", ["torch", "cpp", "triton"])
def test_bounds_hold_for_every_reduction(impl_name, groups, reduction):
    available(impl_name)
    case = random_case(300, 64, 200, seed=9)
    scored = _scorer(impl_name, case, reduction).scores_and_error(
        case.W_dec, case.W_dec.double().norm(dim=1)
    )
    off = np.abs(scored.scores[0].numpy() - exact(case, reduction))
    assert np.all(off <= scored.error[0].numpy())
    assert np.median(scored.error[0].numpy()) < 0.05 * exact(case, reduction).std()


def _scorer(impl: str, case: Case, reduction: str):
    rows = case.rows()
    if impl == "torch":
        from deltalens.engine.impl import torch as torch_impl

        return torch_impl.TokenScorer.prepare(rows, reduction=reduction)
    if impl == "cpp":
        from deltalens.engine.impl import cpp_token

        return cpp_token.TokenScorer.prepare(rows, reduction=reduction)
    from deltalens.engine.impl import triton as triton_impl

    return triton_impl.TokenScorer.prepare(rows, dtype=torch.float32, reduction=reduction)


@pytest.mark.skipif(cpu_extension() is None, reason="deltalens._cpu was not built")
@reductions
def test_every_level_of_the_compiled_kernels_reduces(reduction, monkeypatch):
    case = negated(random_case(133, 70, 60))
    for level in cpu_extension().levels():
        monkeypatch.setenv("DELTALENS_CPU_LEVEL", level)
        scored = _scorer("cpp", case, reduction).scores_and_error(
            case.W_dec, case.W_dec.double().norm(dim=1)
        )
        off = np.abs(scored.scores[0].numpy() - exact(case, reduction))
        assert np.all(off <= scored.error[0].numpy())


# One token, lanes of the kernels more or less than whole, one longer than a group.
LENGTHS = {
    "single": [70],
    "few": [1, 16, 17, 5],
    "many": [3, 1, 40, 8, 130, 15, 33] * 6,
    "long": [20, 400, 1, 128, 300, 7],
}


def segment_truth(case: Case, lengths: list[int]) -> tuple[np.ndarray, np.ndarray]:
    offsets = np.cumsum([0, *lengths])
    sums = np.add.reduceat(case.terms(), offsets[:-1], axis=1).astype(np.float64)
    mean = sums.mean(1)
    if len(lengths) == 1:
        return mean, np.full_like(mean, np.nan)
    return mean, sums.std(1, ddof=1) / len(lengths) ** 0.5


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS.keys())
@pytest.mark.parametrize("normalize", [True, False])
def test_statistics_are_those_of_the_sums_within_segments(impl, groups, lengths, normalize):
    case = random_case(sum(lengths), 40, 50, seed=2)
    case = Case(
        case.acts,
        case.grads,
        case.W_dec,
        case.baseline,
        torch.tensor([1 / n for n in lengths for _ in range(n)]),
    )
    segments = torch.tensor([0, *lengths]).cumsum(0)
    mean, stderr = deltalens.attribution_statistics(
        case.acts,
        case.grads,
        case.W_dec,
        segments,
        baseline=case.baseline,
        impl=impl,
        normalize=normalize,
    )
    assert mean.dtype == stderr.dtype == torch.float32
    truth, spread = segment_truth(case, lengths)
    if normalize:
        squares = case.W_dec.double().square().sum(1).numpy()
        truth, spread = truth / squares, spread / squares
    scale = np.abs(case.terms()).sum(1).astype(np.float64).max()
    np.testing.assert_allclose(mean.numpy(), truth, rtol=1e-5, atol=1e-6 * scale)
    np.testing.assert_allclose(stderr.numpy(), spread, rtol=1e-4, atol=1e-6 * scale)


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")  # NumPy's
def test_given_weights_are_used_and_nonfinite_rows_are_nan(impl):
    case = random_case(60, 12, 20)
    case.W_dec[4, 0] = torch.nan
    with pytest.warns(UserWarning, match="1 rows with NaN or infinity"):
        mean, stderr = deltalens.attribution_statistics(
            case.acts,
            case.grads,
            case.W_dec,
            torch.tensor([0, 10, 35, 60]),
            impl=impl,
            **case.arguments(),
        )
    truth, spread = segment_truth(case, [10, 25, 25])
    assert mean.isnan().nonzero().tolist() == stderr.isnan().nonzero().tolist() == [[4]]
    np.testing.assert_allclose(mean.numpy(), truth, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(stderr.numpy(), spread, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("segments", "message"),
    [
        (torch.tensor([0, 5]), "segments must go from 0 to the 6 tokens, got 0 … 5"),
        (torch.tensor([0, 4, 4, 6]), r"segments must rise, got 4 then 4 at \[1, 2\]"),
        (torch.tensor([0.0, 6.0]), "segments must be integers, got torch.float32"),
        (torch.tensor([6]), r"segments must be a tensor of offsets \[segments \+ 1\], got \(1,\)"),
        ([0, 6], "got list"),
    ],
)
def test_segments_that_do_not_fit_are_refused(segments, message):
    case = random_case(6, 3, 4)
    with pytest.raises(deltalens.InputError, match=message):
        deltalens.attribution_statistics(case.acts, case.grads, case.W_dec, segments)


def test_reductions_that_cannot_be_are_refused():
    case = random_case(6, 3, 4)
    with pytest.raises(deltalens.InputError, match=r"reduction must be one of .*max, got 'mean'"):
        deltalens.attribution(case.acts, case.grads, case.W_dec, reduction="mean")
    with pytest.raises(deltalens.InputError, match=r"'max' needs the token form"):
        deltalens.attribution_topk(
            case.acts, case.grads, case.W_dec, 2, form="quadratic", reduction="max"
        )


def test_the_form_of_other_reductions_is_chosen():
    """Where the quadratic form is the cheaper one."""
    case = random_case(5000, 4, 30)
    scores = deltalens.attribution(
        case.acts, case.grads, case.W_dec, reduction="max", **case.arguments()
    )
    np.testing.assert_allclose(scores.numpy(), exact(case, "max"), rtol=1e-4)
