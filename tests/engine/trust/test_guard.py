"""Scans that are wrong are found out, discarded and done again; right ones are never accused."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

import deltalens
from deltalens.engine.decoder import as_decoder
from deltalens.engine.latent.attribution import gated_problem
from deltalens.engine.latent.scan import latent_scores, top_latent_scores
from deltalens.engine.numerics.extension import cpu_extension
from deltalens.engine.problem import Problem, moment_problem, token_problem
from deltalens.engine.scan import Search, full_scores, top_latents, top_latents_together
from deltalens.engine.scan import search as search_module
from deltalens.engine.topk.ranking import Ranking
from deltalens.engine.trust import implementations
from deltalens.engine.trust.guard import KernelWarning
from deltalens.engine.trust.sample import looked_at, sampled
from deltalens.engine.trust.verdicts import kept_verdict
from fault_kinds import KINDS, Fault, FaultyScorer, with_fault
from helpers.engine_oracle import (
    FORMS,
    IMPLS,
    Case,
    brute_force_topk,
    cancelling_case,
    near_tie_case,
    random_case,
    scaled_case,
)
from helpers.latent_oracle import latent_case
from helpers.processes import run_helper

KERNELS = [*(["cpp"] if cpu_extension() else []), "torch"]
EVERYWHERE = ("stale accumulator", "swapped parts")
kernels = pytest.mark.parametrize("impl", KERNELS)
forms = pytest.mark.parametrize("form", FORMS)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(implementations, "_warned", set())


def problem_of(case: Case, form: str, impl: str) -> Problem:
    if form == "quadratic":
        moment = deltalens.CrossMoment(case.W_dec.shape[1])
        moment.add(case.acts, case.grads, **case.arguments())
        return moment_problem([moment], case.W_dec, impl)
    decoder = as_decoder(case.W_dec)
    return token_problem(case.acts, case.grads, decoder, case.baseline, case.weights, impl)


def test_the_sample_reaches_all_of_a_decoder_and_its_last_row():
    for count in (1, 2, 63, 64, 65, 1000, 131_072, 200_001, 2_097_152):
        rows = sampled(count)
        assert len(rows) == min(count, max(64, min(256, count // 2048)))
        assert rows[-1] == count - 1
        assert all(a < b for a, b in pairwise(rows))
        stretch = -(-count // len(rows))
        assert all(b - a <= 2 * stretch for a, b in pairwise((0, *rows)))
        for row_bytes, most in ((4, 2048), (1 << 15, 1024), (1 << 30, 64)):
            size = max(128, -(-count // most))
            blocks = [row // size for row in looked_at(count, row_bytes)]
            assert blocks == list(range(-(-count // size)))
    assert sampled(131_072) == sampled(131_072)
    offsets = {row % 2048 for row in sampled(131_072)}
    assert len(offsets) > 60, "not always the same place in its stretch"


@kernels
@forms
@pytest.mark.parametrize("make", [cancelling_case, scaled_case, near_tie_case])
def test_right_scans_are_not_accused(impl, form, make):
    case = make(0)
    for options in ({}, {"absolute": True}, {"largest": False}):
        problem = problem_of(case, form, impl)
        for normalize in (False, True):
            top_latents(problem, 50, Ranking(**options), normalize=normalize)
            full_scores(problem, normalize=normalize)
    if form == "quadratic":
        top_latents(problem, 50, Ranking(present_only=True), normalize=True)


@kernels
@forms
@pytest.mark.parametrize("kind", KINDS)
def test_faults_are_found_and_the_scan_is_done_again(impl, form, kind):
    case = random_case(20, 24, 9000, seed=3)
    best = brute_force_topk(case.exact(), 20)
    found = 0
    for seed in range(4):
        faulty = with_fault(problem_of(case, form, impl), Fault(kind, "anywhere", seed), best[0])
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            (top,) = top_latents(faulty, 20, Ranking(), normalize=False)
        assert [each.category for each in said] in ([], [KernelWarning])
        found += len(said)
        if said or kind in EVERYWHERE:
            assert top.latents.tolist() == best.tolist()
            assert top.certified
    if kind != "a flipped exponent bit":
        assert found >= (1 if kind == "last block dropped" else 3)
    verdict = kept_verdict(impl, "cpu")
    assert (verdict is not None) == (impl == "cpp" and found > 0)


@kernels
def test_what_was_wrong_is_said_and_kept(impl):
    case = random_case(20, 24, 3000)
    faulty = with_fault(
        problem_of(case, "token", impl), Fault("stale accumulator", "anywhere", 0), 0
    )
    again = "torch" if impl == "cpp" else "reference"
    said = rf"the {impl} kernels were wrong on .* of latent \d+\. The scan was discarded and done "
    with pytest.warns(KernelWarning, match=said + f"again by {again}"):
        top_latents(faulty, 20, Ranking(), normalize=False)
    if impl == "cpp":
        assert not kept_verdict("cpp", "cpu").good
        with pytest.warns(RuntimeWarning, match="the cpp kernels are wrong on .*a scan told"):
            assert implementations.choose_impl("auto", "cpu") == "torch"


def spoilt(problem: Problem, change) -> Problem:
    """Every tile's scores are changed by ``change(scores, start)``."""
    return replace(problem, scorer=lambda: FaultyScorer(problem.scorer(), change))


@kernels
@forms
def test_full_scores_are_sampled(impl, form):
    case = random_case(20, 24, 3000)
    problem = problem_of(case, form, impl)
    expected = full_scores(problem, normalize=False)

    def last_is_missing(scores, start):
        if start < 3000 <= start + scores.shape[1]:
            scores[:, -1] = 0.0
        return scores

    with pytest.warns(KernelWarning, match="a score outside its bound of latent 2999"):
        found = full_scores(spoilt(problem, last_is_missing), normalize=False)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("fault", ["raised", "lowered", "nan"])
def test_a_single_candidate_cannot_be_wrong(fault):
    """A score that is too high raises the bar for all others."""
    case = random_case(20, 24, 3000)
    exact = case.exact()
    best = brute_force_topk(exact, 20)
    victim = int(brute_force_topk(exact, 3000)[1500]) if fault == "raised" else int(best[3])
    added = {"raised": 100.0, "lowered": -exact[victim] * 0.001, "nan": torch.nan}[fault]

    def change(scores, start):
        if start <= victim < start + scores.shape[1]:
            scores[:, victim - start] += added
        return scores

    faulty = spoilt(problem_of(case, "token", "torch"), change)
    if fault == "nan":  # as if it had overflowed
        (top,) = top_latents(faulty, 20, Ranking(), normalize=False)
    else:
        with pytest.warns(KernelWarning, match=f"of latent {victim}"):
            (top,) = top_latents(faulty, 20, Ranking(), normalize=False)
    assert top.latents.tolist() == best.tolist()


def test_norms_that_leave_rows_out_are_found():
    case = random_case(20, 24, 3000)
    problem = problem_of(case, "token", "torch")

    def norms(rows):
        found = problem.norms(rows)
        found[-60:] = torch.nan
        return found

    with pytest.warns(KernelWarning, match="an interval without its score|do not meet"):
        (top,) = top_latents(replace(problem, norms=norms), 20, Ranking(), normalize=False)
    assert top.latents.tolist() == brute_force_topk(case.exact(), 20).tolist()
    assert not len(top.nonfinite)


def test_a_ranking_that_loses_the_best_is_found(monkeypatch):
    case = random_case(20, 24, 60)  # all of which are in the sample
    right = search_module.Band.candidates

    def candidates(self, *given):
        (kept,) = right(self, *given)
        return [kept._replace(latents=kept.latents[1:], lower=kept.lower[1:], upper=kept.upper[1:])]

    monkeypatch.setattr(search_module.Band, "candidates", candidates)
    with pytest.warns(KernelWarning) as said:
        top_latents(problem_of(case, "token", "torch"), 20, Ranking(), normalize=False)
    assert "reaches the best, and lost it" in str(said[0].message)


@pytest.mark.skipif("cpp" not in KERNELS, reason="needs the extension")
def test_a_screen_and_what_narrows_it_watch_each_other(monkeypatch):
    case = random_case(20, 24, 3000)
    case = replace(case, W_dec=case.W_dec.bfloat16())
    problem = problem_of(case, "token", "cpp")
    expected = brute_force_topk(case.exact(), 20).tolist()
    for wrong in ("screen", "scorer"):
        spoil = FaultyScorer(problem.scorer(), lambda scores, start: scores * 1.5)
        given = {"screen": problem.scorer, "scorer": problem.scorer} | {wrong: lambda s=spoil: s}
        with pytest.warns(KernelWarning, match="two intervals that do not meet|without its score"):
            (top,) = top_latents(replace(problem, **given), 20, Ranking(), normalize=False)
        assert top.latents.tolist() == expected


def test_of_several_searches_only_the_wrong_one_is_done_again():
    cases = [random_case(20, 24, 3000, seed=seed) for seed in (1, 2)]
    cases[1] = replace(cases[1], W_dec=cases[0].W_dec)
    problems = [problem_of(case, "quadratic", "torch") for case in cases]
    alone = [top_latents(problem, 20, Ranking(), normalize=False)[0] for problem in problems]
    problems[1] = spoilt(problems[1], lambda scores, start: scores + 1.0)
    with pytest.warns(KernelWarning) as said:
        found = top_latents_together([Search(p, 20, Ranking(), False) for p in problems])
    assert len(said) == 1
    assert torch.equal(found[0][0].scores, alone[0].scores)
    assert found[1][0].latents.tolist() == alone[1].latents.tolist()


@kernels
def test_gated_scans_are_watched_too(impl):
    case = latent_case("relu", 30, 20, 3000)
    problem = gated_problem(**case.arguments(), impl=impl)
    expected = top_latent_scores(problem, 20, Ranking())
    scores = latent_scores(problem)

    class Faulty:
        def __init__(self, right):
            self.right = right

        def score(self, tile, group, *, bounds):
            found = self.right.score(tile, group, bounds=bounds)
            return found if len(tile.W_dec) < 100 else found * 0.9

    def prepared_by(name):
        prepare = problem.prepared_by(name)
        return (lambda source: Faulty(prepare(source))) if name == impl else prepare

    faulty = replace(problem, prepared_by=prepared_by, tile_rows=1000)
    with pytest.warns(KernelWarning, match="were wrong"):
        found = top_latent_scores(faulty, 20, Ranking())
    assert found.latents.tolist() == expected.latents.tolist()
    with pytest.warns(KernelWarning, match="a score outside its bound"):
        torch.testing.assert_close(latent_scores(faulty), scores, rtol=1e-4, atol=1e-6)


def test_the_reference_is_not_held_against_itself():
    case = random_case(9, 16, 300)
    problem = spoilt(problem_of(case, "token", "reference"), lambda scores, start: scores + 1.0)
    top_latents(problem, 20, Ranking(), normalize=False)
    assert "reference" in IMPLS


def test_of_several_processes_all_do_it_again_when_one_is_wrong(tmp_path):
    done = run_helper("faulty_rank", str(tmp_path), OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    files = sorted(tmp_path.glob("rank-*.json"))
    found = [json.loads(path.read_text()) for path in files]
    assert len(found) == 3
    assert all(each == found[0] for each in found), "one of them decided otherwise"
    assert found[0]["warned"] == {"top": 1, "full": 1, "none": 0}
    assert found[0]["top"] == found[0]["none"]
    case = random_case(20, 24, 5 * 1000)
    assert found[0]["top"] == brute_force_topk(case.exact(), 20).tolist()


def test_the_triton_kernels_are_watched_in_the_interpreter(monkeypatch):
    pytest.importorskip("triton")
    from deltalens.engine.impl import triton as triton_impl

    right = triton_impl.quadratic_form

    def quadratic_form(W_dec, *rest, **options):
        scores = right(W_dec, *rest, **options)
        scores[:, len(W_dec) // 128 * 128 :] = 0.0  # the last block is never written
        return scores

    monkeypatch.setattr(triton_impl, "quadratic_form", quadratic_form)
    case = random_case(30, 16, 300)
    given = {"form": "quadratic", "impl": "triton", **case.arguments()}
    with pytest.warns(KernelWarning, match="the triton kernels were wrong"):
        top = deltalens.attribution_topk(case.acts, case.grads, case.W_dec, 9, **given)
    assert top.latents.tolist() == brute_force_topk(case.exact(), 9).tolist()
    assert not kept_verdict("triton", "cpu").good
    with pytest.warns(KernelWarning, match="the triton kernels were wrong"):
        deltalens.attribution(case.acts, case.grads, case.W_dec, **given)
