"""One pass over a decoder for every score, or for statistics of every latent."""

from __future__ import annotations

import torch
from torch import Tensor

from deltalens.engine.decoder import gather_rows
from deltalens.engine.numerics.precision import exact_matmul
from deltalens.engine.problem import Problem
from deltalens.engine.reductions import SegmentStatistics
from deltalens.engine.scan.tiles import (
    beyond_fp32,
    inverse_square,
    plain_norms,
    score_tile,
    tiles,
    warn_nonfinite,
)
from deltalens.engine.tile import Scorer, SegmentScorer
from deltalens.engine.trust.guard import Violation, beyond, instead_of, is_guarded, of_any
from deltalens.engine.trust.sample import Spots
from deltalens.engine.upload import of_all, own_latents


def full_scores(problem: Problem, *, normalize: bool) -> Tensor:
    """Every score, float32 [queries, n_latents]; non-finite rows give NaN and one warning."""
    with exact_matmul():
        scorer = problem.scorer()
        scores, bad, spots = _every_score(problem, scorer, normalize)
        wrong = None
        if is_guarded(problem.impl):
            wrong = of_any(problem.ranks, _wrong_score(problem, scorer, spots, normalize))
    if wrong is not None:
        again = problem.by(instead_of(problem.impl, problem.device, wrong))
        return full_scores(again, normalize=normalize)
    warn_nonfinite(bad)
    own = own_latents(problem.decoder, problem.tile_rows, problem.ranks)
    return of_all(problem.ranks, [scores[:, own]], dim=1)


def _every_score(problem: Problem, scorer: Scorer, normalize: bool) -> tuple[Tensor, Tensor, Spots]:
    """Scores of this process's tiles, the latents of non-finite rows, and what a sample got."""
    scores = torch.empty(problem.queries, problem.decoder.n_latents, device=problem.device)
    nonfinite: list[Tensor] = []
    spots = Spots(problem.decoder.n_latents)
    for tile in tiles(problem):
        values = scorer.scores(tile.rows)
        for rows, places in beyond_fp32(tile):
            values[:, places] = torch.cat([exact.scores(rows) for exact in problem.exact])
        if normalize:
            values = values * inverse_square(tile.norms)
        values[:, ~tile.finite] = torch.nan
        spots.take(tile.start, values)
        scores[:, tile.start : tile.start + tile.rows.shape[0]] = values.float()
        nonfinite.append(tile.start + (~tile.finite).nonzero()[:, 0])
    return scores, of_all(problem.ranks, nonfinite), spots


def _wrong_score(
    problem: Problem, scorer: Scorer, spots: Spots, normalize: bool
) -> Violation | None:
    """The first score of the sample that is not within the scorer's own bound of it."""
    latents, values = spots.of_all(problem.ranks)
    rows = gather_rows(problem.decoder, latents).to(problem.device)
    norms = plain_norms(rows)
    bound = score_tile(scorer, rows, norms, normalize)
    exact = [score_tile(each, rows, norms, normalize) for each in problem.exact]
    scores = torch.cat([each.scores for each in exact])
    error = torch.cat([each.error for each in exact]) + bound.error
    # What overflows in fp32 does so here as well, and has no bound.
    unbounded = ~error.isfinite() & norms.isfinite()
    scores = scores.masked_fill(~norms.isfinite(), torch.nan)
    values = torch.where(unbounded, scores, values[0].to(problem.device))
    return beyond(values, scores, error.nan_to_num(), latents)


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
        for tile in tiles(problem):
            mean, spread, segments = scorer.statistics(tile.rows)
            for rows, places in beyond_fp32(tile):
                exact = problem.exact[0]
                assert isinstance(exact, SegmentScorer)
                mean[places], spread[places], _ = exact.statistics(rows)
            if normalize:
                inverse = inverse_square(tile.norms)
                mean, spread = mean * inverse, spread * inverse.square()
            values = torch.stack([mean, spread]).masked_fill(~tile.finite, torch.nan)
            moments[:, tile.start : tile.start + tile.rows.shape[0]] = values
            nonfinite.append(tile.start + (~tile.finite).nonzero()[:, 0])
    warn_nonfinite(torch.cat(nonfinite))
    return SegmentStatistics(moments[0], moments[1], segments)
