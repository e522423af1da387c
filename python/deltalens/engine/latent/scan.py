"""One pass over encoder and decoder: every latent score, or the exact top-k by rescoring."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

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
from deltalens.engine.topk.held import Kept
from deltalens.engine.topk.ranking import Candidates, Ranking, TopLatents, select
from deltalens.engine.trust.guard import (
    Truth,
    Violation,
    beyond,
    disagreement,
    instead_of,
    is_guarded,
    lost,
    of_any,
)
from deltalens.engine.trust.sample import Spots, Told, together
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
    impl: str
    prepared_by: Callable[[str], Callable[[LatentSource], LatentScorer]]
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
        prepared = self.prepared_by(self.impl)(clear)
        return prepared if unclear is None else WithExactTokens(prepared, ExactLatents(unclear))

    def _winners(self) -> Entries | None:
        """What scores are made of where few latents are open at a token and others have no term."""
        source = self.source
        if source.thresholds is None or source.gate.cut is not None:
            return None
        if self.impl == "reference":
            return None
        if source.reduction != "sum" and self.mean is not None:
            return None
        return source.thresholds.winners

    def tile(self, latents: slice | Tensor, dec: Tensor, enc: Tensor) -> LatentTile:
        """Rows of the latents on the problem's device."""
        dec, enc = dec.to(self.device), enc.to(self.device)
        gate = self.source.gate.rows(latents, self.device, self.mean)
        known = self.source.thresholds
        enc_norms = row_norms(enc) if known is None else known.enc_norms[gate.latents]
        return LatentTile(dec, enc, row_norms(dec), enc_norms, gate)

    def gather(self, latents: Tensor) -> LatentTile:
        """The rows of latents int64 [c]."""
        rows = (gather_rows(each, latents.cpu()) for each in (self.W_dec, self.W_enc))
        return self.tile(latents, *rows)


def latent_scores(problem: LatentProblem) -> Tensor:
    """Every score, float32 [n_latents]; non-finite rows give NaN and one warning."""
    found = torch.empty(problem.W_dec.n_latents, device=problem.device)
    nonfinite, spots = [], Spots(problem.W_dec.n_latents)
    wrong: Violation | None = None
    with exact_matmul():
        scorer = problem.scorer()
        for start, tile in _tiles_for(scorer, problem):
            scores, _, finite = scored(problem, scorer, start, tile, bounds=False)
            scores = scores.masked_fill(~finite, torch.nan)
            spots.take(start, scores[None])
            found[start : start + len(scores)] = scores.float()
            nonfinite.append(start + (~finite).nonzero()[:, 0])
        bad = of_all(problem.ranks, nonfinite)
        if is_guarded(problem.impl):
            wrong = of_any(problem.ranks, _wrong_score(problem, scorer, spots))
    if wrong is not None:
        return latent_scores(_instead(problem, wrong))
    _warn_nonfinite(bad)
    own = own_latents(problem.W_dec, problem.tile_rows, problem.ranks)
    return of_all(problem.ranks, [found[own]])


def _instead(problem: LatentProblem, wrong: Violation) -> LatentProblem:
    """The same with another implementation."""
    return replace(problem, impl=instead_of(problem.impl, problem.device, wrong))


def _wrong_score(problem: LatentProblem, scorer: LatentScorer, spots: Spots) -> Violation | None:
    """The first score of the sample that is not within the scorer's own bound of it."""
    latents, values = spots.of_all(problem.ranks)
    bounds = []
    for part in _parts(problem, scorer, latents):
        group = int(part[0]) // problem.source.gate.group_size
        scored = scorer.score(problem.gather(part), group, bounds=True)
        bounds.append(_as_written(problem, part, scored)[1])
    tile = problem.gather(latents)
    finite = tile.dec_norms.isfinite() & tile.enc_norms.isfinite()
    found = _as_written(problem, latents, ExactLatents(problem.source).score_and_errors(tile))
    scores = found[0].masked_fill(~finite, torch.nan)
    bound = (found[1] + found[2] + torch.cat(bounds)).nan_to_num()
    return beyond(values[0].to(problem.device), scores[None], bound, latents)


def _parts(problem: LatentProblem, scorer: LatentScorer, latents: Tensor) -> Iterator[Tensor]:
    """Rising latents as a scorer takes them: consecutive ones, or any of one group."""
    if isinstance(scorer, WinnersScorer):
        yield from latents.split(1)
        return
    groups = latents // problem.source.gate.group_size
    for group in groups.unique():
        yield latents[groups == group]


def top_latent_scores(problem: LatentProblem, k: int, ranking: Ranking) -> TopLatents:
    """The exact top-k, as :func:`deltalens.engine.scan.top_latents` finds it."""
    with exact_matmul():
        band, nonfinite = Band(k), []
        spots = Spots(problem.W_dec.n_latents)
        scorer = problem.scorer()
        for start, tile in _tiles_for(scorer, problem):
            scores, error, finite = scored(problem, scorer, start, tile, bounds=True)
            keys = ranking.key(scores)
            lower, upper = keys - error, keys + error
            unknown = ~(lower.isfinite() & upper.isfinite())
            lower = lower.masked_fill(unknown, -torch.inf).masked_fill(~finite, torch.nan)[None]
            upper = upper.masked_fill(unknown, torch.inf).masked_fill(~finite, torch.nan)[None]
            band.push(lower, upper, start)
            spots.take(start, lower, upper)
            nonfinite.append(start + (~finite).nonzero()[:, 0])
        bad = of_all(problem.ranks, nonfinite)
        (kept,) = band.candidates(problem.ranks)
        latents, ends = spots.of_all(problem.ranks)
        told = Told(latents, *ends[:, 0])
        candidates, wrong = _rescored(problem, ranking, kept, told)
        if is_guarded(problem.impl):
            wrong = of_any(problem.ranks, lost(told, kept) or wrong)
    if wrong is not None:
        return top_latent_scores(_instead(problem, wrong), k, ranking)
    _warn_nonfinite(bad)
    return select(candidates, k, ranking, bad)


def _rescored(
    problem: LatentProblem, ranking: Ranking, kept: Kept, sample: Told
) -> tuple[Candidates, Violation | None]:
    """Candidates with scores in fp64, and the first latent of which the scan was wrong."""
    told = together([Told(kept.latents, kept.lower, kept.upper), sample], problem.device)
    if not is_guarded(problem.impl):
        told = Told(*(each[: len(kept.latents)] for each in told))
    latents, places = told.latents.unique(return_inverse=True)
    exact = ExactLatents(problem.source)
    found, finite = [], []
    for chunk in latents.split(_RESCORE_ROWS):
        tile = problem.gather(chunk)
        found.append(_as_written(problem, chunk, exact.score_and_errors(tile)))
        finite.append(tile.dec_norms.isfinite() & tile.enc_norms.isfinite())
    scores, rounding, gating = torch.cat(found, 1)
    own = places[: len(kept.latents)]
    candidates = Candidates(
        latents[own],
        scores[own],
        (rounding + gating)[own],
        kept.complete,
        rounding[own],
    )
    truth = Truth(ranking.key(scores), rounding + gating, torch.cat(finite))
    if not is_guarded(problem.impl):
        return candidates, None
    return candidates, disagreement(told, Truth(*(each[places] for each in truth[:3])))


def tiles(problem: LatentProblem) -> Iterator[tuple[int, LatentTile]]:
    """First latent and rows of one tile after the other; a tile is valid until the next one."""
    both = (
        device_tiles(each, problem.tile_rows, problem.device, problem.ranks)
        for each in (problem.W_dec, problem.W_enc)
    )
    for (start, dec), (_, enc) in zip(*both, strict=True):
        yield start, problem.tile(slice(start, start + len(dec)), dec, enc)


def _tiles_for(scorer: LatentScorer, problem: LatentProblem) -> Iterator[tuple[int, LatentTile]]:
    """The same; for winners, which are known, without the encoder's rows."""
    if not isinstance(scorer, WinnersScorer):
        yield from tiles(problem)
        return
    for start, dec in device_tiles(problem.W_dec, problem.tile_rows, problem.device, problem.ranks):
        unread = dec.new_empty(len(dec), 0)
        yield start, problem.tile(slice(start, start + len(dec)), dec, unread)


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
