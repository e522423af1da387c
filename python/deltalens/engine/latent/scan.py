"""One pass over encoder and decoder: every latent score, or the exact top-k by rescoring."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from deltalens.engine.decoder import Decoder, gather_rows
from deltalens.engine.latent.entries import Entries
from deltalens.engine.latent.rows import (
    ExactLatents,
    LatentScorer,
    LatentSource,
    LatentTile,
    WithExactTokens,
)
from deltalens.engine.latent.winners import WinnersScorer
from deltalens.engine.numerics.norms import row_norms
from deltalens.engine.numerics.precision import UNIT_ROUNDOFF, exact_matmul
from deltalens.engine.topk.band import Band
from deltalens.engine.topk.ranking import Candidates, Ranking, TopLatents, select
from deltalens.engine.upload import device_tiles, of_all, own_latents
from deltalens.ranks.ranks import ALONE, Ranks

_RESCORE_ROWS = 512


@dataclass(frozen=True)
class LatentProblem:
    """The latent scores of one set of tokens, over one dictionary."""

    W_dec: Decoder
    W_enc: Decoder
    source: LatentSource
    mean: Tensor | None  # z̄ [n_latents]
    tile_rows: int
    prepare: Callable[[LatentSource], LatentScorer]
    ranks: Ranks = ALONE  # the processes that scan together, each a range of tiles

    @property
    def device(self) -> torch.device:
        return self.source.rows.acts.device

    def scorer(self) -> LatentScorer:
        """What runs over every latent."""
        winners = self._winners()
        if winners is not None:
            return WinnersScorer(self.source, winners)
        clear, unclear = self.source.by_clarity()
        if clear is None:
            return ExactLatents(self.source)
        prepared = self.prepare(clear)
        return prepared if unclear is None else WithExactTokens(prepared, ExactLatents(unclear))

    def _winners(self) -> Entries | None:
        """What scores are made of where few latents are open at a token and others have no term."""
        source = self.source
        if source.thresholds is None or source.gate.cut is not None:
            return None
        if self.prepare is ExactLatents:
            return None
        if source.reduction != "sum" and self.mean is not None:
            return None
        return source.thresholds.winners

    def tile(self, latents: slice | Tensor, dec: Tensor, enc: Tensor) -> LatentTile:
        """Rows of the latents on the problem's device."""
        dec, enc = dec.to(self.device), enc.to(self.device)
        gate = self.source.gate.rows(latents, self.device, self.mean)
        return LatentTile(dec, enc, row_norms(dec), row_norms(enc), gate)

    def gather(self, latents: Tensor) -> LatentTile:
        """The rows of latents int64 [c]."""
        rows = (gather_rows(each, latents.cpu()) for each in (self.W_dec, self.W_enc))
        return self.tile(latents, *rows)


def latent_scores(problem: LatentProblem) -> Tensor:
    """Every score, float32 [n_latents]; non-finite rows give NaN and one warning."""
    found = torch.empty(problem.W_dec.n_latents, device=problem.device)
    nonfinite = []
    with exact_matmul():
        scorer = problem.scorer()
        for start, tile in tiles(problem):
            scores, _, finite = scored(problem, scorer, start, tile, bounds=False)
            found[start : start + len(scores)] = scores.masked_fill(~finite, torch.nan).float()
            nonfinite.append(start + (~finite).nonzero()[:, 0])
    _warn_nonfinite(of_all(problem.ranks, nonfinite))
    own = own_latents(problem.W_dec, problem.tile_rows, problem.ranks)
    return of_all(problem.ranks, [found[own]])


def top_latent_scores(problem: LatentProblem, k: int, ranking: Ranking) -> TopLatents:
    """The exact top-k, as :func:`deltalens.engine.scan.top_latents` finds it."""
    with exact_matmul():
        band, nonfinite = Band(k), []
        scorer = problem.scorer()
        for start, tile in tiles(problem):
            scores, error, finite = scored(problem, scorer, start, tile, bounds=True)
            keys = ranking.key(scores)
            lower, upper = keys - error, keys + error
            unknown = ~(lower.isfinite() & upper.isfinite())
            lower = lower.masked_fill(unknown, -torch.inf).masked_fill(~finite, torch.nan)
            upper = upper.masked_fill(unknown, torch.inf).masked_fill(~finite, torch.nan)
            band.push(lower[None], upper[None], start)
            nonfinite.append(start + (~finite).nonzero()[:, 0])
        bad = of_all(problem.ranks, nonfinite)
        _warn_nonfinite(bad)
        ((latents, complete),) = band.candidates(problem.ranks)
        return select(_rescored(problem, latents, complete), k, ranking, bad)


def _rescored(problem: LatentProblem, latents: Tensor, complete: bool) -> Candidates:
    exact = ExactLatents(problem.source)
    latents = latents.to(problem.device)
    found = []
    for chunk in latents.split(_RESCORE_ROWS):
        scored = exact.score_and_errors(problem.gather(chunk))
        found.append(_as_written(problem, chunk, scored))
    scores, rounding, gating = torch.cat(found, 1)
    return Candidates(latents, scores, rounding + gating, complete, rounding)


def tiles(problem: LatentProblem) -> Iterator[tuple[int, LatentTile]]:
    """First latent and rows of one tile after the other; a tile is valid until the next one."""
    both = (
        device_tiles(each, problem.tile_rows, problem.device, problem.ranks)
        for each in (problem.W_dec, problem.W_enc)
    )
    for (start, dec), (_, enc) in zip(*both, strict=True):
        yield start, problem.tile(slice(start, start + len(dec)), dec, enc)


def scored(
    problem: LatentProblem, scorer: LatentScorer, start: int, tile: LatentTile, *, bounds: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Scores and bounds, fp64 [n], and which rows are finite."""
    size, stop = problem.source.gate.group_size, start + len(tile.W_dec)
    parts = []
    for group in range(start // size, (stop - 1) // size + 1):
        first, last = max(start, group * size), min(stop, (group + 1) * size)
        part = tile.part(slice(first - start, last - start))
        parts.append(scorer.score(part, group, bounds=bounds))
    scores, error = _as_written(problem, slice(start, stop), torch.cat(parts, 1))
    return scores, error, tile.dec_norms.isfinite() & tile.enc_norms.isfinite()


def _as_written(problem: LatentProblem, latents: slice | Tensor, scored: Tensor) -> Tensor:
    """Scores and bounds [2 or 3, n] of what the latents write: ``out`` times what was scored."""
    out = problem.source.gate.outputs(latents, problem.device)
    scores, bounds = scored[0] * out, scored[1:] * out.abs()
    bounds[0] += 2 * UNIT_ROUNDOFF[torch.float64] * scores.abs()
    return torch.cat([scores[None], bounds])


def _warn_nonfinite(latents: Tensor) -> None:
    if len(latents):
        first = ", ".join(map(str, latents[:5].tolist()))
        warnings.warn(
            f"W_dec and W_enc have {len(latents)} rows with NaN or infinity, left out of the "
            f"ranking (first: {first})",
            stacklevel=4,
        )
