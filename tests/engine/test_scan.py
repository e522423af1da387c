"""The returned top-k is the exact one, its bounds hold, and it says when that is not proven."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import numpy as np
import pytest
import torch

import deltalens
from deltalens.engine import problem
from deltalens.engine.cost.planner import tile_rows
from deltalens.engine.topk.band import Band
from helpers.engine_oracle import (
    FORMS,
    IMPLS,
    Case,
    SlicedDecoder,
    brute_force_topk,
    cancelling_case,
    near_tie_case,
    random_case,
    scaled_case,
)

implementations = pytest.mark.parametrize("impl", IMPLS)
forms = pytest.mark.parametrize("form", FORMS)


def topk(case: Case, k: int, **options: object) -> deltalens.TopLatents:
    return deltalens.attribution_topk(
        case.acts, case.grads, case.W_dec, k, **case.arguments(), **options
    )


@implementations
@forms
@pytest.mark.parametrize("k", [1, 5, 100, 507])
@pytest.mark.parametrize("largest", [True, False])
def test_equals_brute_force_on_exact_scores(impl, form, k, largest):
    case = random_case(130, 70, 507)
    top = topk(case, k, form=form, impl=impl, largest=largest)
    exact = case.exact()
    assert top.latents.tolist() == brute_force_topk(exact, k, largest=largest).tolist()
    assert top.certified
    assert top.scores.dtype == torch.float32
    assert top.latents.dtype == torch.int64
    scores, latents = top
    assert np.all(np.abs(scores.double().numpy() - exact[latents]) <= top.error_bound.numpy())


@forms
def test_winners_in_first_last_and_tile_boundary_rows(form):
    rows = tile_rows(16)
    n_latents = 2 * rows + 5
    planted = [0, rows - 1, rows, 2 * rows - 1, 2 * rows, n_latents - 1]
    case = random_case(3, 16, n_latents)
    direction = torch.nn.functional.normalize(case.acts[0] - case.baseline, dim=0)
    case.weights[:] = 1.0
    case.grads[:] = -direction
    case.acts[:] = case.acts[0]
    for strength, latent in enumerate(planted, start=1):
        case.W_dec[latent] = 5 * strength * direction
    top = topk(case, 6, form=form)
    assert top.latents.tolist() == planted[::-1]


@implementations
@forms
def test_equal_scores_go_to_the_smaller_index(impl, form):
    case = random_case(20, 30, 400)
    best = int(brute_force_topk(case.exact(), 1)[0])
    copies = [5, 17, 200, 399]
    case.W_dec[copies] = case.W_dec[best].clone()
    expected = sorted({best, *copies})
    top = topk(case, len(expected), form=form, impl=impl)
    assert top.latents.tolist() == expected
    assert top.scores.unique().numel() == 1
    cut = topk(case, 3, form=form, impl=impl)
    assert cut.latents.tolist() == expected[:3]
    assert not cut.certified, "a tie across the k-th place proves nothing"


@implementations
@forms
def test_nonfinite_rows_never_rank(impl, form):
    case = random_case(10, 16, 100)
    winner = int(brute_force_topk(case.exact(), 1)[0])
    case.W_dec[winner, 3] = torch.inf
    case.W_dec[50] = torch.nan
    with pytest.warns(UserWarning, match="NaN or infinity"):
        top = topk(case, 98, form=form, impl=impl)
    assert top.nonfinite.tolist() == sorted([winner, 50])
    assert not set(top.latents.tolist()) & {winner, 50}
    assert len(top) == 98


@forms
@pytest.mark.parametrize("impl", IMPLS[1:])
@pytest.mark.parametrize("make", [cancelling_case, scaled_case, near_tie_case])
@pytest.mark.parametrize("seed", range(3))
def test_bounds_hold_and_the_set_is_exact_on_hostile_input(form, impl, make, seed):
    case = make(seed)
    exact = case.exact()
    top = topk(case, 100, form=form, impl=impl)
    assert np.all(
        np.abs(top.scores.double().numpy() - exact[top.latents]) <= top.error_bound.numpy()
    )
    if top.certified:
        assert set(top.latents.tolist()) == set(brute_force_topk(exact, 100).tolist())
    # Whatever was left out is no better than the worst that was taken, within fp64.
    worst = exact[top.latents].min()
    left_out = np.delete(exact, top.latents.numpy())
    slack = 1e-12 * np.abs(case.norm_product()).max()
    assert left_out.max() <= worst + slack


@forms
def test_error_intervals_of_the_scan_contain_the_exact_scores(form):
    """The bound that candidates are chosen by, for every latent and not only the winners."""
    from deltalens.engine.impl import torch as torch_impl

    case = cancelling_case(0)
    if form == "token":
        scorer = torch_impl.TokenScorer.prepare(case.rows())
    else:
        moment = deltalens.CrossMoment(90)
        moment.add(case.acts, case.grads, **case.arguments())
        scorer = torch_impl.QuadraticScorer.prepare(
            moment.matrix[None], torch.tensor([moment.rounding])
        )
    scored = scorer.scores_and_error(case.W_dec, case.W_dec.double().norm(dim=1))
    off = np.abs(scored.scores[0].numpy() - case.exact())
    assert np.all(off <= scored.error[0].numpy())
    assert np.median(scored.error[0].numpy() / off) < 1e5, "a bound this loose selects nothing"


PATHS = ("streaming", "whole", *(["kernel"] if importlib.util.find_spec("triton") else []))
paths = pytest.mark.parametrize("path", PATHS)


@paths
def test_candidates_beyond_the_room_are_reported(path):
    n = 6000
    lower, upper = torch.full((1, n), -1.0).double(), torch.full((1, n), 1.0).double()
    band = Band(2, 1, path)
    band.push(lower, upper, 0)
    ((candidates, complete, *_),) = band.candidates()
    assert not complete
    assert len(candidates) == 4 * 2 + 4096
    roomy = Band(2, 1, path)
    roomy.push(lower[:, :4000], upper[:, :4000], 0)
    assert roomy.candidates()[0][1]


def hostile_intervals(seed: int, n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """fp64 ends of three queries: tiny, huge and mixed, with ties closer than fp32 can tell."""
    generator = torch.Generator().manual_seed(seed)
    keys = torch.randn(3, n, generator=generator, dtype=torch.float64)
    keys[:, ::3] = 2.0 + torch.randint(-9, 9, keys[:, ::3].shape, generator=generator) * 2.0**-40
    width = torch.rand(3, n, generator=generator, dtype=torch.float64) * 2.0**-38
    keys *= torch.tensor([[1e-200], [1e250], [1.0]], dtype=torch.float64)
    width *= torch.tensor([[1e-200], [1e250], [1.0]], dtype=torch.float64)
    lower, upper = keys - width, keys + width
    lower[:, 5], upper[:, 5] = -torch.inf, torch.inf
    lower[2, 7::2] = upper[2, 7::2] = torch.nan
    lower[1, 11:] = upper[1, 11:] = torch.nan  # fewer than k of one query can rank
    return lower, upper


@paths
@pytest.mark.parametrize("k", [1, 20, 300])
def test_every_path_keeps_all_that_may_be_among_the_best(path, k):
    lower, upper = hostile_intervals(k, 3001)
    band = Band(k, 3, path)
    for start, stop in ((2000, 3001), (0, 700), (700, 2000)):
        band.push(lower[:, start:stop], upper[:, start:stop], start)
    for query, (candidates, complete, *_) in enumerate(band.candidates()):
        ranked = (~lower[query].isnan()).nonzero()[:, 0]
        ends = np.sort(lower[query, ranked].numpy())[::-1]
        threshold = ends[k - 1] if len(ends) >= k else -np.inf
        needed = ranked[upper[query, ranked].numpy() >= threshold].tolist()
        assert complete
        assert candidates.tolist() == sorted(candidates.tolist())
        assert set(needed) <= set(candidates.tolist()) <= set(ranked.tolist())
        if path == "streaming":
            assert candidates.tolist() == needed
        # fp32 rounding may only add latents that fp32 cannot tell from the k-th.
        slack = 2.0**-21 * abs(threshold)
        near = ranked[upper[query, ranked].numpy() >= threshold - slack].tolist()
        assert set(candidates.tolist()) <= set(near)


@forms
@paths
def test_every_path_gives_the_same_top_k(form, path, monkeypatch):
    case = near_tie_case(1)
    expected = topk(case, 40, form=form, impl="torch")
    monkeypatch.setattr(problem, "topk_path", lambda *_: path)
    found = topk(case, 40, form=form, impl="torch")
    assert found.latents.tolist() == expected.latents.tolist()
    assert torch.equal(found.scores, expected.scores)
    assert found.certified == expected.certified


@forms
def test_many_equal_rows_are_not_certified_but_ranked_by_index(form):
    case = random_case(4, 8, 9000)
    case.W_dec[:] = case.W_dec[0].clone()
    top = topk(case, 10, form=form)
    assert top.latents.tolist() == list(range(10))
    assert not top.certified


@forms
def test_decoder_objects_rank_as_their_tensor(form):
    case = random_case(9, 64, 40_000)
    decoder = SlicedDecoder(case.W_dec)
    from_object = deltalens.attribution_topk(case.acts, case.grads, decoder, 50, form=form)
    from_tensor = topk(
        Case(case.acts, case.grads, case.W_dec, 0 * case.baseline, torch.full((9,), 1 / 9)),
        50,
        form=form,
    )
    assert torch.equal(from_object.latents, from_tensor.latents)
    assert decoder.largest_slice <= tile_rows(64)


@forms
def test_repeated_runs_are_bitwise_equal(form):
    case = random_case(50, 100, 2000)
    runs = [topk(case, 30, form=form) for _ in range(20)]
    assert all(torch.equal(run.scores, runs[0].scores) for run in runs)
    assert all(torch.equal(run.latents, runs[0].latents) for run in runs)


@pytest.mark.parametrize("k", [0, -1, 101, 2.0, True])
def test_k_outside_the_decoder_is_refused(k):
    case = random_case(5, 8, 100)
    with pytest.raises(ValueError, match=r"k (is|must be)"):
        topk(case, k)


PEAK_MEMORY = """
import resource, sys, torch, deltalens
torch.manual_seed(0)
tokens, d_model, n_latents = 8192, 64, 40_000
acts, grads = torch.randn(tokens, d_model), torch.randn(tokens, d_model)
W_dec = torch.randn(n_latents, d_model)
deltalens.attribution_topk(acts[:64], grads[:64], W_dec[:4096], 10, form=sys.argv[1])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
deltalens.attribution_topk(acts, grads, W_dec, 100, form=sys.argv[1])
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@forms
def test_peak_memory_is_a_tile_and_not_tokens_by_latents(form):
    """tokens × latents in fp32 would be 1250 MiB."""
    run = subprocess.run(
        [sys.executable, "-c", PEAK_MEMORY, form], capture_output=True, text=True, check=True
    )
    assert int(run.stdout) < 160
