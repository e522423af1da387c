"""Encoder-gated scores of every implementation against fully materialised latents in fp64."""

from __future__ import annotations

import warnings
from dataclasses import replace

import pytest
import torch

from deltalens.engine import (
    LatentGate,
    gated_attribution,
    gated_attribution_topk,
    token_rows,
)
from deltalens.engine.latent import scan as latent_scan
from deltalens.engine.latent.attribution import gated_problem
from deltalens.engine.latent.rows import ExactLatents
from deltalens.engine.numerics.extension import cpu_extension
from deltalens.errors import InputError
from helpers.latent_oracle import (
    KINDS,
    LatentCase,
    latent_case,
    tied_case,
)

IMPLS = ("reference", "torch", *(["cpp"] if cpu_extension() else []))
REDUCTIONS = ("sum", "abs", "positive", "max")
LEVELS = cpu_extension().levels() if cpu_extension() else []
# One number; less and more than whole tiles of latents, tokens and columns.
SHAPES = [(1, 1, 1), (7, 255, 14), (133, 300, 240), (270, 37, 64)]

kinds = pytest.mark.parametrize("kind", KINDS)
impls = pytest.mark.parametrize("impl", IMPLS)


def check_scores(case: LatentCase, reduction: str, **options: str) -> None:
    """Against what fp32 products of these sizes may be off by."""
    scores = gated_attribution(**case.arguments(), reduction=reduction, **options)
    assert scores.dtype == torch.float32
    tokens, d_model = case.inputs.shape
    budget = (4 * d_model + tokens + 8) * 2.0**-24 * case.sizes() + 2.0**-60
    assert torch.all((scores.double() - case.scores(reduction)).abs() <= budget)


@kinds
@impls
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_scores_are_those_of_materialised_latents(kind, impl, reduction):
    for shape in SHAPES:
        check_scores(latent_case(kind, *shape), reduction, impl=impl)
    check_scores(tied_case(kind), reduction, impl=impl)


@kinds
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_every_level_and_dtype(kind, level, dtype, monkeypatch):
    monkeypatch.setenv("DELTALENS_CPU_LEVEL", level)
    case = latent_case(kind, 45, 290, 60, dtype=dtype, seed=1)
    for reduction in REDUCTIONS:
        check_scores(case, reduction, impl="cpp")
    check_intervals(case, "cpp")
    check_intervals(tied_case(kind), "cpp")


def check_intervals(case: LatentCase, impl: str, reduction: str = "sum") -> None:
    """A scan's own scores and bounds, before anything is rescored."""
    found = gated_problem(**case.arguments(), impl=impl, reduction=reduction)
    scorer = found.scorer()
    for start, tile in latent_scan.tiles(found):
        scores, error, _ = latent_scan.scored(found, scorer, start, tile, bounds=True)
        exact = case.scores(reduction)[start : start + len(scores)]
        assert torch.all((scores - exact).abs() <= error)


def crowded_case(kind: str) -> LatentCase:
    """Latents in bundles that differ by less than fp32 can tell, at every place."""
    case = latent_case(kind, 60, 64, 96, seed=3)
    bundled = case.W_enc[:12].repeat_interleave(8, 0)
    jitter = 1 + torch.arange(96)[:, None] % 8 * 2.0**-23
    return replace(case, W_enc=bundled * jitter, bias=torch.zeros(96), other=torch.zeros(96))


def knife_edge_case(kind: str) -> LatentCase:
    """Pre-activations within rounding of the thresholds for half of the tokens."""
    case = latent_case(kind, 50, 200, 96, seed=4)
    at = case.inputs[torch.arange(96) % 25] * case.W_enc
    return replace(case, other=at.sum(1) + (case.bias if kind == "threshold" else 0))


@kinds
@impls
@pytest.mark.parametrize("make", [tied_case, crowded_case, knife_edge_case])
def test_intervals_hold_where_gates_are_a_matter_of_rounding(kind, impl, make):
    for reduction in REDUCTIONS:
        check_intervals(make(kind), impl, reduction)


@kinds
@impls
@pytest.mark.parametrize("largest", [True, False])
def test_the_top_k_is_the_exact_one(kind, impl, largest):
    case = latent_case(kind, 90, 70, 600, seed=5)
    for k in (1, 25, 600):
        top = gated_attribution_topk(**case.arguments(), k=k, largest=largest, impl=impl)
        exact = case.scores()
        best = exact.argsort(descending=largest, stable=True)[:k]
        assert top.certified
        assert set(top.latents.tolist()) == set(best.tolist())
        off = (top.scores.double() - exact[top.latents]).abs()
        assert torch.all(off <= top.error_bound)
        assert torch.all(top.scores.diff() <= 0) if largest else torch.all(top.scores.diff() >= 0)


@kinds
@impls
@pytest.mark.parametrize("make", [tied_case, crowded_case, knife_edge_case])
def test_a_certificate_is_never_wrong(kind, impl, make):
    case = make(kind)
    exact = case.scores()
    for k in (1, 7, 30, 95):
        top = gated_attribution_topk(**case.arguments(), k=k, impl=impl)
        assert torch.all((top.scores.double() - exact[top.latents]).abs() <= top.error_bound)
        if top.certified:
            assert set(top.latents.tolist()) == set(exact.argsort(descending=True)[:k].tolist())


def test_a_tie_for_a_place_is_not_certified_where_it_matters():
    case = tied_case("topk")
    same = replace(case, W_enc=case.W_enc[:1].expand(96, -1).clone(), bias=torch.zeros(96))
    gate = replace(same.gate(), keep=1)
    top = gated_attribution_topk(**{**same.arguments(), "gate": gate}, k=1, impl="torch")
    assert not top.certified


@kinds
@impls
def test_dead_latents_score_their_mean_alone(kind, impl):
    case = latent_case(kind, 40, 30, 64)
    dead = replace(
        case, bias=case.bias - 1e3, other=case.other + (-1e4 if kind == "gated" else 1e4)
    )
    assert not dead.latents().any()
    expected = (dead.weights.double() @ dead.written()) * dead.z_mean.double()
    found = gated_attribution(**dead.arguments(), impl=impl)
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-7)
    without = gated_attribution(**{**dead.arguments(), "z_mean": None}, impl=impl)
    assert not without.any()


@impls
@pytest.mark.parametrize("kind", ["threshold", "topk", "groupmax"])
@pytest.mark.parametrize("reduction", ["sum", "max"])
def test_tokens_in_several_groups(kind, impl, reduction, monkeypatch):
    monkeypatch.setattr(token_rows, "GROUP_BYTES", 1)
    check_scores(latent_case(kind, 300, 20, 40), reduction, impl=impl)
    check_intervals(crowded_case(kind), impl, reduction)


def exact_latents(case: LatentCase) -> torch.Tensor:
    """z [n_latents, tokens] as the engine has it in fp64."""
    found = gated_problem(**case.arguments())
    everything = found.gather(torch.arange(len(case.W_dec)))
    return ExactLatents(found.source).latents(everything, slice(0, len(case.inputs)))


@pytest.mark.parametrize("kind", ["topk", "rescaled topk", "groupmax"])
def test_exactly_k_latents_win_and_the_smaller_among_equals(kind):
    for case in (tied_case(kind), latent_case(kind, 40, 33, 96, seed=6)):
        case = replace(case, bias=case.bias + 50.0)  # all open
        z = exact_latents(case)
        assert torch.equal(z.T > 0, case.latents() > 0)
        if kind != "rescaled topk":  # some of whose rows are zero
            assert torch.all((z > 0).sum(0) == case.k)
        torch.testing.assert_close(z.T, case.latents())


def test_equal_encoder_rows_compete_by_their_number():
    """Their products may differ in the last bit with their place in a matrix product."""
    case = latent_case("topk", 64, 301, 512, k=5, seed=7)
    case = replace(case, W_enc=case.W_enc[:1].expand(512, -1).clone(), bias=torch.ones(512) * 90)
    z = exact_latents(case)
    assert torch.equal((z > 0).sum(0), torch.full((64,), 5))
    assert (z[:5] > 0).all()


@kinds
def test_a_score_depends_on_its_latent_alone(kind):
    """Not on the tile it fell into, where nothing competes; and calls repeat to the bit."""
    case = latent_case(kind, 70, 100, 96)
    first = gated_attribution(**case.arguments())
    assert torch.equal(gated_attribution(**case.arguments()), first)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        assert torch.equal(gated_attribution(**case.arguments()), first)
    finally:
        torch.set_num_threads(threads)


@impls
def test_broken_rows_are_reported_and_do_not_rank(impl):
    case = latent_case("topk", 30, 20, 60)
    case.W_enc[7, 3], case.W_dec[11, 0] = torch.inf, torch.nan
    with pytest.warns(UserWarning, match=r"2 rows with NaN or infinity.*\(first: 7, 11\)"):
        scores = gated_attribution(**case.arguments(), impl=impl)
    assert scores.isnan().nonzero()[:, 0].tolist() == [7, 11]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        top = gated_attribution_topk(**case.arguments(), k=58, impl=impl)
    assert top.nonfinite.tolist() == [7, 11]
    assert not {7, 11} & set(top.latents.tolist())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"W_enc": torch.ones(5, 4)}, "W_enc has 5 latents but W_dec has 6"),
        ({"W_enc": torch.ones(6, 3)}, "W_enc has d_model 3 but W_dec has 4"),
        ({"gate": LatentGate(7)}, "the gate has 7 latents but W_dec has 6"),
        ({"z_mean": torch.ones(5)}, r"z_mean must be a floating-point tensor \[6\]"),
        ({"z_mean": torch.full((6,), torch.nan)}, "z_mean has 6 NaN or infinite"),
        ({"inputs": torch.ones(3, 5)}, "same shape"),
        ({"reduction": "mean"}, "reduction must be one of"),
        ({"impl": "fast"}, "impl must be auto or one of"),
    ],
)
def test_bad_input_is_one_line(change, message):
    given = {
        "inputs": torch.ones(3, 4),
        "grads": torch.ones(3, 4),
        "W_dec": torch.ones(6, 4),
        "W_enc": torch.ones(6, 4),
        "gate": LatentGate(6),
    }
    with pytest.raises(InputError, match=message) as caught:
        gated_attribution(**{**given, **change})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bias": torch.ones(5)}, r"bias must be a floating-point tensor \[n_latents\] = \[6\]"),
        ({"bias": torch.full((6,), torch.inf)}, "bias holds NaN or infinity"),
        ({"cut": torch.full((6,), torch.nan)}, "cut holds NaN"),
        ({"scale": -torch.ones(6)}, "scale must not be negative, got -1"),
        ({"groups": 4}, "6 latents do not divide into 4 groups"),
        ({"keep": 7}, r"k must be 1 … 6, the latents that compete, got 7"),
    ],
)
def test_a_gate_that_cannot_be(change, message):
    with pytest.raises(InputError, match=message):
        LatentGate(6, **change)
