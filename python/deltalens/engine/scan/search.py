"""One pass over a decoder for the exact top-k: candidates, rescored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from deltalens.engine.checks import check_k
from deltalens.engine.decoder import gather_rows
from deltalens.engine.numerics.precision import exact_matmul
from deltalens.engine.problem import Problem
from deltalens.engine.scan.intervals import Search, intervals
from deltalens.engine.scan.rescoring import Found, rescore
from deltalens.engine.scan.tiles import RESCORE_ROWS, tile_of, tiles, warn_nonfinite
from deltalens.engine.tile import Scorer
from deltalens.engine.topk.band import Band
from deltalens.engine.topk.held import Kept
from deltalens.engine.topk.ranking import Ranking, TopLatents, select
from deltalens.engine.trust.guard import Violation, apart, instead_of, is_guarded, lost, of_any
from deltalens.engine.trust.sample import SecondLook, Spots, Told
from deltalens.engine.upload import of_all

_NARROWED_BYTES = 64 << 20
_SPOTS_NARROWED = 16


def top_latents(problem: Problem, k: int, ranking: Ranking, *, normalize: bool) -> list[TopLatents]:
    """The exact top-k of each query.

    A latent stays a candidate while the upper end of its interval reaches the k-th largest lower
    end; candidates are rescored in fp64 and ranked by that. At most a few thousand candidates are
    kept. Where there is a screen it goes first and the scorer over what it leaves, or, when that is
    more, over the decoder again; when the scorer leaves more too, ``certified`` is False.
    """
    (found,) = top_latents_together([Search(problem, k, ranking, normalize)])
    return found


def top_latents_together(searches: Sequence[Search]) -> list[list[TopLatents]]:
    """:func:`top_latents` of problems over one decoder, each tile of which is read once for all.

    Problems keep apart what they compute, so that each has the bits that it has by itself. They
    must have the same decoder, tiles and device.
    """
    for search in searches:
        check_k(search.k, search.problem.decoder.n_latents)
    with exact_matmul():
        found, bad = _candidates(searches)
        best = [
            _best(search, of_queries, bad)
            for search, of_queries in zip(searches, found, strict=True)
        ]
    if not all(isinstance(each, Violation) for each in best):
        warn_nonfinite(bad, depth=5)
    return [
        _again(search, each) if isinstance(each, Violation) else each
        for search, each in zip(searches, best, strict=True)
    ]


def _again(search: Search, wrong: Violation) -> list[TopLatents]:
    problem = search.problem
    other = problem.by(instead_of(problem.impl, problem.device, wrong))
    return top_latents_together([replace(search, problem=other)])[0]


def _candidates(searches: Sequence[Search]) -> tuple[list[list[Found]], Tensor]:
    """What a scan leaves of each query, and the latents of non-finite rows."""
    problems = [search.problem for search in searches]
    found, bad = _scan(searches, [problem.screen or problem.scorer for problem in problems])
    again = []
    for number, search in enumerate(searches):
        if search.problem.screen is None:
            continue
        if all(of_query.kept.complete for of_query in found[number]):
            found[number] = _narrowed(search, found[number])
        else:
            again.append(number)
    if again:
        rescanned, bad = _scan(
            [searches[number] for number in again], [problems[number].scorer for number in again]
        )
        for number, of_queries in zip(again, rescanned, strict=True):
            found[number] = of_queries
    return found, bad


def _scan(
    searches: Sequence[Search], prepare: Sequence[Callable[[], Scorer]]
) -> tuple[list[list[Found]], Tensor]:
    problem = searches[0].problem
    bands = [
        Band(search.k, search.problem.queries, search.problem.topk_path(search.k))
        for search in searches
    ]
    scorers = [scorer() for scorer in prepare]
    spots = [Spots(problem.decoder.n_latents) for _ in searches]
    second = SecondLook(problem.decoder, len(searches))
    nonfinite: list[Tensor] = []
    for tile in tiles(problem):
        places = second.begin(tile.start, tile.rows)
        for number, search in enumerate(searches):
            lower, upper = intervals(search, scorers[number], tile)
            bands[number].push(lower, upper, tile.start)
            spots[number].take(tile.start, lower, upper)
            second.take(number, lower.index_select(1, places), upper.index_select(1, places))
        nonfinite.append(tile.start + (~tile.finite).nonzero()[:, 0])
    found = []
    for number, search in enumerate(searches):
        wrong = _unrepeatable(search, scorers[number], second, number)
        found.append(_left(search.problem, bands[number], spots[number], wrong))
    return found, of_all(problem.ranks, nonfinite)


def _unrepeatable(
    search: Search, scorer: Scorer, second: SecondLook, number: int
) -> list[Violation | None]:
    """Of each query, the first latent that has another interval when it is scored again."""
    problem = search.problem
    if not is_guarded(problem.impl) or not second.any:
        return [None] * problem.queries
    lower, upper = intervals(search, scorer, tile_of(problem, 0, second.rows()))
    return [
        apart(told, Told(told.latents, *again), ranked=not search.ranking.present_only)
        for told, again in zip(second.told(number), zip(lower, upper, strict=True), strict=True)
    ]


def _left(problem: Problem, band: Band, spots: Spots, wrong: list[Violation | None]) -> list[Found]:
    """Of each query."""
    queries = band.candidates(problem.ranks)
    latents, (lower, upper) = spots.of_all(problem.ranks)
    found = []
    for number, kept in enumerate(queries):
        told = Told(latents, lower[number], upper[number])
        found.append(Found(kept, [_told_of(kept), told], wrong[number] or lost(told, kept)))
    return found


def _told_of(kept: Kept) -> Told:
    return Told(kept.latents, kept.lower, kept.upper)


def _narrowed(search: Search, screened: list[Found]) -> list[Found]:
    """Those of a screen's candidates that the scorer leaves."""
    scorer = search.problem.scorer()
    return [_narrow(search, scorer, query, found) for query, found in enumerate(screened)]


def _narrow(search: Search, scorer: Scorer, query: int, screened: Found) -> Found:
    problem, band, latents = search.problem, Band(search.k), screened.kept.latents
    decoder = problem.decoder
    # Few tiles, because a scorer may prepare its tokens again for each.
    most = _NARROWED_BYTES // (decoder.d_model * decoder.dtype.itemsize)
    size = max(RESCORE_ROWS, min(problem.tile_rows, most))
    ends = []
    for start in range(0, latents.shape[0], size):
        rows = gather_rows(decoder, latents[start : start + size])
        tile = tile_of(problem, start, rows)
        lower, upper = (each[query : query + 1] for each in intervals(search, scorer, tile))
        band.push(lower, upper, start)
        ends.append(torch.stack([lower[0], upper[0]]))
    lower, upper = torch.cat(ends, 1).to(latents.device)
    told = Told(latents, lower, upper)
    wrong = screened.wrong or apart(told, _told_of(screened.kept))
    (kept,) = band.candidates()
    spots = torch.cat([kept.latents, _some_rejected(kept.latents, len(latents))])
    found = kept._replace(latents=latents[kept.latents])
    # What the screen told of a sample stands; of candidates the scorer's intervals are narrower.
    return Found(found, [Told(*(each[spots] for each in told)), screened.told[1]], wrong)


def _some_rejected(kept: Tensor, count: int) -> Tensor:
    """A few places of ``count`` that are not ``kept``."""
    rejected = torch.ones(count, dtype=torch.bool, device=kept.device)
    rejected[kept] = False
    places = rejected.nonzero()[:, 0]
    return places[:: max(1, -(-len(places) // _SPOTS_NARROWED))]


def _best(search: Search, found: list[Found], nonfinite: Tensor) -> list[TopLatents] | Violation:
    wrong: Violation | None = None
    best = []
    for query, of_query in enumerate(found):
        candidates, also = rescore(search, query, of_query)
        wrong = wrong or of_query.wrong or also
        best.append(select(candidates, search.k, search.ranking, nonfinite))
    if is_guarded(search.problem.impl):
        wrong = of_any(search.problem.ranks, wrong)
        if wrong is not None:
            return wrong
    return best
