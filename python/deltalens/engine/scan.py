"""One pass over a decoder: every score, or the exact top-k by candidates and rescoring."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from deltalens.engine.checks import check_k
from deltalens.engine.decoder import gather_rows
from deltalens.engine.numerics.norms import row_norms
from deltalens.engine.numerics.precision import SMALLEST_NORMAL, exact_matmul, gamma
from deltalens.engine.problem import Problem
from deltalens.engine.reductions import SegmentStatistics
from deltalens.engine.tile import Scorer, SegmentScorer, TileScores
from deltalens.engine.topk.band import Band
from deltalens.engine.topk.ranking import Candidates, Ranking, TopLatents, select
from deltalens.engine.upload import device_tiles, of_all, own_latents

_RESCORE_ROWS = 512
_NARROWED_BYTES = 64 << 20
_PRESENCE_ROWS = 8192
_WIDEST = 2.0**40  # norm, or one over it, to whose squares sums of fp32 products have room


@dataclass(frozen=True)
class _Tile:
    start: int
    rows: Tensor  # [n, d_model] on the problem's device
    norms: Tensor  # fp64 [n]
    finite: Tensor  # bool [n]


def full_scores(problem: Problem, *, normalize: bool) -> Tensor:
    """Every score, float32 [queries, n_latents]; non-finite rows give NaN and one warning."""
    scores = torch.empty(problem.queries, problem.decoder.n_latents, device=problem.device)
    nonfinite: list[Tensor] = []
    with exact_matmul():
        scorer = problem.scorer()
        for tile in _tiles(problem):
            values = scorer.scores(tile.rows)
            for rows, places in _beyond_fp32(tile):
                values[:, places] = torch.cat([exact.scores(rows) for exact in problem.exact])
            if normalize:
                values = values * _inverse_square(tile.norms)
            values[:, ~tile.finite] = torch.nan
            scores[:, tile.start : tile.start + tile.rows.shape[0]] = values.float()
            nonfinite.append(tile.start + (~tile.finite).nonzero()[:, 0])
    _warn_nonfinite(of_all(problem.ranks, nonfinite))
    own = own_latents(problem.decoder, problem.tile_rows, problem.ranks)
    return of_all(problem.ranks, [scores[:, own]], dim=1)


def segment_scores(problem: Problem, *, normalize: bool) -> SegmentStatistics:
    """Statistics over segments of tokens, fp64 [n_latents] on the rows' device.

    Non-finite rows give NaN and one warning.
    """
    shape = (2, problem.decoder.n_latents)
    moments = torch.empty(shape, dtype=torch.float64, device=problem.device)
    nonfinite: list[Tensor] = []
    segments = 0
    with exact_matmul():
        scorer = problem.scorer()
        assert isinstance(scorer, SegmentScorer)
        for tile in _tiles(problem):
            mean, spread, segments = scorer.statistics(tile.rows)
            for rows, places in _beyond_fp32(tile):
                exact = problem.exact[0]
                assert isinstance(exact, SegmentScorer)
                mean[places], spread[places], _ = exact.statistics(rows)
            if normalize:
                inverse = _inverse_square(tile.norms)
                mean, spread = mean * inverse, spread * inverse.square()
            values = torch.stack([mean, spread]).masked_fill(~tile.finite, torch.nan)
            moments[:, tile.start : tile.start + tile.rows.shape[0]] = values
            nonfinite.append(tile.start + (~tile.finite).nonzero()[:, 0])
    _warn_nonfinite(torch.cat(nonfinite))
    return SegmentStatistics(moments[0], moments[1], segments)


@dataclass(frozen=True)
class Search:
    """The k best latents of each of a problem's queries are looked for."""

    problem: Problem
    k: int
    ranking: Ranking
    normalize: bool


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
        _warn_nonfinite(bad, depth=5)
        return [
            _best(search, of_queries, bad)
            for search, of_queries in zip(searches, found, strict=True)
        ]


_Found = list[tuple[Tensor, bool]]  # see _Band.candidates, for each query


def _candidates(searches: Sequence[Search]) -> tuple[list[_Found], Tensor]:
    """What a scan leaves of each query, and the latents of non-finite rows."""
    problems = [search.problem for search in searches]
    found, bad = _scan(searches, [problem.screen or problem.scorer for problem in problems])
    again = []
    for number, search in enumerate(searches):
        if search.problem.screen is None:
            continue
        if all(complete for _, complete in found[number]):
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
) -> tuple[list[_Found], Tensor]:
    bands = [
        Band(search.k, search.problem.queries, search.problem.topk_path(search.k))
        for search in searches
    ]
    scorers = [scorer() for scorer in prepare]
    nonfinite: list[Tensor] = []
    problem = searches[0].problem
    for tile in _tiles(problem):
        for search, scorer, band in zip(searches, scorers, bands, strict=True):
            lower, upper = _intervals(search, scorer, tile)
            band.push(lower, upper, tile.start)
        nonfinite.append(tile.start + (~tile.finite).nonzero()[:, 0])
    return [band.candidates(problem.ranks) for band in bands], of_all(problem.ranks, nonfinite)


def _narrowed(search: Search, screened: _Found) -> _Found:
    """Those of a screen's candidates that the scorer leaves."""
    scorer = search.problem.scorer()
    return [_narrow(search, scorer, query, latents) for query, (latents, _) in enumerate(screened)]


def _narrow(search: Search, scorer: Scorer, query: int, latents: Tensor) -> tuple[Tensor, bool]:
    problem, band = search.problem, Band(search.k)
    decoder = problem.decoder
    # Few tiles, because a scorer may prepare its tokens again for each.
    most = _NARROWED_BYTES // (decoder.d_model * decoder.dtype.itemsize)
    size = max(_RESCORE_ROWS, min(problem.tile_rows, most))
    for start in range(0, latents.shape[0], size):
        rows = gather_rows(decoder, latents[start : start + size])
        tile = _tile(problem, start, rows)
        lower, upper = _intervals(search, scorer, tile)
        band.push(lower[query : query + 1], upper[query : query + 1], start)
    ((places, complete),) = band.candidates()
    return latents[places], complete


def _best(search: Search, found: _Found, nonfinite: Tensor) -> list[TopLatents]:
    rescored = [
        _rescore(search, query, latents, complete)
        for query, (latents, complete) in enumerate(found)
    ]
    return [select(candidates, search.k, search.ranking, nonfinite) for candidates in rescored]


def _tiles(problem: Problem) -> Iterator[_Tile]:
    for start, rows in device_tiles(
        problem.decoder, problem.tile_rows, problem.device, problem.ranks
    ):
        yield _tile(problem, start, rows)


def _tile(problem: Problem, start: int, rows: Tensor) -> _Tile:
    rows = rows.to(problem.device)
    norms = problem.norms(rows)
    return _Tile(start, rows, norms, norms.isfinite())


def _beyond_fp32(tile: _Tile) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows so long or so short that sums of fp32 products overflow or vanish, and their places, a
    chunk at a time."""
    outside = _too_long(tile) | ((tile.norms < 1 / _WIDEST) & (tile.norms > 0))
    for places in (outside & tile.finite).nonzero()[:, 0].split(_RESCORE_ROWS):
        if places.shape[0]:
            yield tile.rows[places], places


def _too_long(tile: _Tile) -> Tensor:
    return tile.norms > _WIDEST


def _score(scorer: Scorer, rows: Tensor, norms: Tensor, normalize: bool) -> TileScores:
    scores, error = scorer.scores_and_error(rows, norms)
    if normalize:
        inverse = _inverse_square(norms)
        scores, error = scores * inverse, error * inverse
        error = error + gamma(rows.shape[1] + 8, torch.float64) * scores.abs()
    return TileScores(scores, error)


def _inverse_square(norms: Tensor) -> Tensor:
    """1 / ‖d‖², and 0 for a zero row: a dead latent scores 0."""
    return torch.where(norms > 0, norms.square().reciprocal(), torch.zeros_like(norms))


def _intervals(search: Search, scorer: Scorer, tile: _Tile) -> tuple[Tensor, Tensor]:
    """Lower and upper ends of the keys, fp64 [queries, n]; NaN for rows that cannot rank."""
    scored = _score(scorer, tile.rows, tile.norms, search.normalize)
    keys = search.ranking.key(scored.scores)
    lower, upper = keys - scored.error, keys + scored.error
    # A finite row whose fp32 score overflowed is always rescored.
    unknown = ~(lower.isfinite() & upper.isfinite())
    if search.problem.reduction != "sum":  # in which what overflowed may be dropped
        unknown = unknown | _too_long(tile)
    lower = lower.masked_fill(unknown, -torch.inf)
    upper = upper.masked_fill(unknown, torch.inf)
    if search.ranking.present_only:
        _limit_to_present(search.problem, tile, lower, upper)
    # Filling by a mask, unlike indexing with one, does not wait for a GPU.
    return lower.masked_fill(~tile.finite, torch.nan), upper.masked_fill(~tile.finite, torch.nan)


def _limit_to_present(problem: Problem, tile: _Tile, lower: Tensor, upper: Tensor) -> None:
    """Drop absent latents; those within rounding of zero presence wait for fp64."""
    assert problem.presence is not None
    directions = problem.presence.float()
    parts = tile.rows.split(_PRESENCE_ROWS)  # so that their fp32 copy stays small
    presence = torch.cat([directions @ part.float().T for part in parts], 1).double()
    slack = gamma(tile.rows.shape[1] + 2, torch.float32) * tile.norms + tile.rows.shape[
        1
    ] * SMALLEST_NORMAL[torch.float32] * (1 + tile.norms)
    bound = problem.presence.norm(dim=1)[:, None] * slack + slack
    upper.masked_fill_(presence < -bound, torch.nan)
    lower.masked_fill_(presence < -bound, torch.nan)
    lower.masked_fill_(presence.abs() <= bound, -torch.inf)


def _rescore(search: Search, query: int, latents: Tensor, complete: bool) -> Candidates:
    problem = search.problem
    scores: list[Tensor] = []
    errors: list[Tensor] = []
    kept: list[Tensor] = []
    for chunk in latents.split(_RESCORE_ROWS):
        rows = gather_rows(problem.decoder, chunk).to(problem.device)
        if search.ranking.present_only:
            assert problem.presence is not None
            present = (rows.double() @ problem.presence[query]) > 0
            rows, chunk = rows[present], chunk.to(problem.device)[present]
        norms = row_norms(rows)
        scored = _score(problem.exact[query], rows, norms, search.normalize)
        scores.append(scored.scores[0])
        errors.append(scored.error[0])
        kept.append(chunk.to(problem.device))
    return Candidates(torch.cat(kept), torch.cat(scores), torch.cat(errors), complete)


def _warn_nonfinite(latents: Tensor, depth: int = 4) -> None:
    if latents.shape[0]:
        first = ", ".join(str(i) for i in latents[:5].tolist())
        warnings.warn(
            f"W_dec has {latents.shape[0]} rows with NaN or infinity, left out of the ranking "
            f"(first: {first})",
            stacklevel=depth,
        )
