"""The engine on the Triton kernels: scores, bounds of the screen, exact top-k."""

from __future__ import annotations

import numpy as np
import pytest
import torch

pytest.importorskip("triton")

import deltalens
from deltalens.engine import problem
from deltalens.engine.impl import triton as triton_impl
from deltalens.engine.impl.triton_operands import spectral_norm
from deltalens.engine.token_rows import TokenRows
from deltalens.engine.trust.implementations import choose_impl
from helpers.engine_oracle import (
    FORMS,
    Case,
    brute_force_topk,
    cancelling_case,
    near_tie_case,
    random_case,
    scaled_case,
)
from helpers.kernel_oracle import (
    DEVICE,
    DTYPES,
)

forms = pytest.mark.parametrize("form", FORMS)
dtypes = pytest.mark.parametrize("dtype", DTYPES)
SHAPES = [(1, 1, 1), (3, 5, 7), (33, 40, 50), (70, 130, 65)]


def on_device(case: Case) -> dict[str, torch.Tensor]:
    return {
        name: getattr(case, name).to(DEVICE)
        for name in ("acts", "grads", "W_dec", "baseline", "weights")
    }


def scorer_of(case: Case, form: str, *, screen: bool, width: float = 0.0):
    given = on_device(case)
    W_dec = given.pop("W_dec")
    if form == "token":
        given = given | {name: given[name].double() for name in ("baseline", "weights")}
        return triton_impl.TokenScorer.prepare(
            TokenRows(**given), dtype=W_dec.dtype, screen=screen, width=width
        )
    moment = deltalens.CrossMoment(W_dec.shape[1], DEVICE)
    moment.add(**given)
    rounding = torch.tensor([moment.rounding], dtype=torch.float64, device=DEVICE)
    return triton_impl.QuadraticScorer.prepare(
        moment.matrix[None], rounding, dtype=W_dec.dtype, screen=screen, width=width
    )


def few(case: Case, rows: int) -> Case:
    """The first rows of the decoder: the interpreter is slow."""
    return Case(case.acts, case.grads, case.W_dec[:rows], case.baseline, case.weights)


@forms
@dtypes
@pytest.mark.parametrize(("tokens", "d_model", "n_latents"), SHAPES)
def test_scores_are_within_the_error_budget(form, dtype, tokens, d_model, n_latents):
    """At most twice what the obvious fp32 code loses, and one rounding of the largest score."""
    ours, plain, rounding = [], [], []
    for seed in range(max(1, 60 // (tokens * n_latents))):
        case = random_case(tokens, d_model, n_latents, dtype=dtype, seed=seed)
        scores = deltalens.attribution(**on_device(case), form=form, impl="triton")
        exact, scale = case.exact(), case.magnitude()
        ours.append(np.abs(scores.double().cpu().numpy() - exact) / scale)
        plain.append(np.abs(case.plain_fp32() - exact) / scale)
        rounding.append(2.0**-24 * np.abs(exact) / scale)
        if form == "quadratic":
            rounding.append(2.0**-24 * case.norm_product() / scale)
    largest = [np.concatenate(errors).max() for errors in (ours, plain, rounding)]
    assert largest[0] <= 2 * (largest[1] + largest[2])


@forms
@dtypes
@pytest.mark.parametrize("screen", [False, True])
@pytest.mark.parametrize("make", [random_case, cancelling_case, scaled_case, near_tie_case])
def test_bounds_hold_and_are_of_use(form, dtype, screen, make):
    case = make(60, 90, 120) if make is random_case else few(make(0), 120)
    largest = case.W_dec.abs().max() if dtype == torch.float16 else 1.0
    case = Case(
        case.acts, case.grads, (case.W_dec / largest).to(dtype), case.baseline, case.weights
    )
    rows = case.W_dec.to(DEVICE)
    scored = scorer_of(case, form, screen=screen).scores_and_error(
        rows, torch.linalg.vector_norm(rows, dim=1, dtype=torch.float64)
    )
    off = np.abs(scored.scores[0].cpu().numpy() - case.exact())
    assert np.all(off <= scored.error[0].cpu().numpy())
    if make is random_case:
        spread = case.exact().std()
        assert np.median(scored.error[0].cpu().numpy()) < (0.5 if screen else 0.05) * spread


@forms
@pytest.mark.parametrize("rounded", ["decoder", "rows"])
def test_roundings_that_all_go_one_way_are_inside_the_bound(form, rounded):
    """Numbers just above 1, which float16 rounds down to it, in one operand and 1 in the other."""
    above = 1 + 2.0**-12
    of_decoder, of_rows = (above, 1.0) if rounded == "decoder" else (1.0, above)
    case = Case(
        acts=torch.full((4, 64), of_rows),
        grads=torch.full((4, 64), -of_rows),
        W_dec=torch.full((5, 64), of_decoder),
        baseline=torch.zeros(64),
        weights=torch.full((4,), 0.25),
    )
    rows = case.W_dec.to(DEVICE)
    scored = scorer_of(case, form, screen=True).scores_and_error(
        rows, torch.linalg.vector_norm(rows, dim=1, dtype=torch.float64)
    )
    off = np.abs(scored.scores[0].cpu().numpy() - case.exact())
    assert np.all(off > 2.0**-13 * case.exact()), "nothing was rounded"
    assert np.all(off <= scored.error[0].cpu().numpy())


@forms
def test_a_bound_is_as_narrow_as_it_is_asked_to_be_and_holds(form):
    """Widths of the error, over the spread of all scores."""
    case = random_case(70, 64, 300)
    exact, rows = case.exact(), case.W_dec.to(DEVICE)
    norms = torch.linalg.vector_norm(rows, dim=1, dtype=torch.float64)
    widths = []
    for asked in (0.0, 0.01, 1e9):
        scored = scorer_of(case, form, screen=True, width=asked).scores_and_error(rows, norms)
        assert np.all(
            np.abs(scored.scores[0].cpu().numpy() - exact) <= scored.error[0].cpu().numpy()
        )
        widths.append(float(scored.error[0].median()) / exact.std())
    assert widths == sorted(widths)
    assert widths[1] < 0.05
    assert widths[0] < widths[2] / 1.5


@forms
@dtypes
@pytest.mark.parametrize("largest", [True, False])
def test_the_top_k_behind_a_screen_is_the_exact_one(form, dtype, largest, monkeypatch):
    monkeypatch.setattr(problem, "width_of_screen", lambda *_, **__: 0.0)
    case = random_case(40, 48, 300, dtype=dtype, seed=3)
    top = deltalens.attribution_topk(
        **on_device(case), k=20, form=form, impl="triton", largest=largest
    )
    assert top.certified
    assert top.latents.tolist() == brute_force_topk(case.exact(), 20, largest=largest).tolist()


def test_several_moments_share_a_pass_and_present_latents_are_kept():
    cases = [random_case(30, 24, 80, seed=seed) for seed in (0, 1, 2)]
    moments = [deltalens.CrossMoment(24, DEVICE) for _ in cases]
    for moment, case in zip(moments, cases, strict=True):
        given = on_device(case)
        moment.add(given["acts"], given["grads"], baseline=given["baseline"])
    W_dec = cases[0].W_dec.to(DEVICE)
    for options in ({}, {"present_only": True}, {"absolute": True, "normalize": True}):
        ours = deltalens.engine.scan_moments(moments, W_dec, 10, impl="triton", **options)
        exact = deltalens.engine.scan_moments(moments, W_dec, 10, impl="reference", **options)
        assert [top.latents.tolist() for top in ours] == [top.latents.tolist() for top in exact]


@forms
@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")  # NumPy's
def test_nonfinite_rows_never_rank(form):
    case = random_case(10, 16, 100)
    case.W_dec[3, 5] = torch.nan
    case.W_dec[99, 0] = torch.inf
    with pytest.warns(UserWarning, match="2 rows with NaN or infinity"):
        top = deltalens.attribution_topk(**on_device(case), k=98, form=form, impl="triton")
    assert top.nonfinite.tolist() == [3, 99]
    assert not set(top.latents.tolist()) & {3, 99}


def test_columns_of_a_transposed_decoder_are_read_as_rows():
    case = random_case(10, 16, 40)
    given = on_device(case)
    given["W_dec"] = given["W_dec"].T.contiguous().T
    scores = deltalens.attribution(**given, impl="triton", form="token")
    np.testing.assert_allclose(scores.cpu().numpy(), case.exact(), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("width", [1, 7, 60])
def test_the_spectral_norm_is_bounded_from_above_and_not_by_much(width):
    generator = torch.Generator().manual_seed(width)
    for scale in (1e-30, 1.0, 1e20):
        matrix = torch.randn(width, width, generator=generator, dtype=torch.float64) * scale
        exact = float(torch.linalg.matrix_norm(matrix, 2))
        assert exact <= spectral_norm(matrix) <= 1.5 * exact
        bounds = [spectral_norm(matrix, squarings=count) for count in range(4)]
        for bound in bounds:
            assert exact <= spectral_norm(matrix, enough=bound) <= bound * (1 + 1e-9)
        assert spectral_norm(matrix, enough=2 * bounds[0]) == bounds[0]


def test_auto_leaves_cpus_to_other_kernels():
    assert choose_impl("auto", "cpu") in ("cpp", "torch")


def test_without_the_interpreter_cpu_rows_are_refused_with_the_remedy(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    case = random_case(3, 4, 5)
    with pytest.raises(deltalens.InputError, match=r"needs an NVIDIA GPU .* on cpu; use torch"):
        deltalens.attribution(case.acts, case.grads, case.W_dec, impl="triton")
