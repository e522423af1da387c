"""One pass over every latent's sums: the null distribution of the largest, and resampled ranks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from deltalens.engine.numerics.precision import exact_matmul
from deltalens.engine.resampling.tile_sums import TileSums, in_step
from deltalens.engine.topk.ranking import Ranking
from deltalens.ranks.ranks import ALONE, Ranks

LISTED = 1000
_BLOCK_NUMBERS = 1 << 20  # statistics that are held at a time


@dataclass(frozen=True)
class Reweightings:
    """How segments are reweighted.

    signs: ±1 fp64 [flips, segments]; weights: fp64 [resamples, segments]; keys: fp64 [k, resamples]
    of the ranked latents int64 [k] under those weights, larger for better latents.
    """

    signs: Tensor
    weights: Tensor
    ranked: Tensor
    keys: Tensor


class Resampled(NamedTuple):
    """largest: fp64 [flips], over all latents of the statistic under each flip; own: fp64 [k],
    that of the ranked latents as they are; strongest: fp64, the LISTED largest of all as they are,
    in falling order; above: int64 [k, resamples], how many admitted latents outside the ranking
    have a larger key."""

    largest: Tensor
    own: Tensor
    strongest: Tensor
    above: Tensor


class Resampling(NamedTuple):
    """Sums of all latents, a tile at a time, how they are reweighted, and which end is the best."""

    tiles: Iterable[TileSums]
    given: Reweightings
    ranking: Ranking


def resample(
    tiles: Iterable[TileSums], given: Reweightings, ranking: Ranking, ranks: Ranks = ALONE
) -> Resampled:
    """Statistic: Σ_p Δ_p / √(Σ_p Δ_p²), which rises with t = mean / standard error.

    Unlike t it has no pole, and √(Σ Δ²) is the same under every flip. Latents whose sums are all 0
    have the statistic 0. ``ranks``: processes that have
    a part of the tiles each. Memory beyond a tile is 16 MiB and O(segments · (flips + resamples)).
    """
    (found,) = resample_together([Resampling(tiles, given, ranking)], ranks)
    return found


def resample_together(works: Sequence[Resampling], ranks: Ranks = ALONE) -> list[Resampled]:
    """:func:`resample` of several, each with the bits that it has by itself.

    They go through their latents in step, so that what they read of one decoder is read close
    together.
    """
    passes = [_Pass.begin(given, ranking) for _, given, ranking in works]
    with exact_matmul():
        for number, tile in in_step([work.tiles for work in works]):
            passes[number].add(tile)
    for passed in passes:
        passed.merge(ranks)
    return [passed.result() for passed in passes]


@dataclass
class _Pass:
    given: Reweightings
    ranking: Ranking
    largest: Tensor
    own: Tensor
    strongest: Tensor
    counts: Tensor  # int64 [resamples, k + 1]: by how many of the keys a latent beats
    thresholds: Tensor  # fp64 [resamples, k], the keys rising
    order: Tensor  # int64 [resamples, k], whose they are
    _there: dict[torch.device, tuple[Tensor, Tensor, Tensor]] = field(default_factory=dict)

    @classmethod
    def begin(cls, given: Reweightings, ranking: Ranking) -> _Pass:
        k, resamples = given.keys.shape
        thresholds, order = given.keys.T.sort(dim=1)
        return cls(
            given,
            ranking,
            largest=torch.full((len(given.signs),), -torch.inf, dtype=torch.float64),
            own=torch.full((k,), torch.nan, dtype=torch.float64),
            strongest=torch.empty(0, dtype=torch.float64),
            counts=torch.zeros(resamples, k + 1, dtype=torch.int64),
            thresholds=thresholds.contiguous(),
            order=order,
        )

    def add(self, tile: TileSums) -> None:
        columns = max(len(self.given.signs), len(self.given.weights))
        size = max(1, _BLOCK_NUMBERS // columns)
        for first in range(0, len(tile.sums), size):
            part = slice(first, first + size)
            self._add(tile.start + first, tile.sums[part], tile.admitted[part])

    def _add(self, start: int, sums: Tensor, admitted: Tensor) -> None:
        signs, weights, ranked = self._on(sums.device)
        size = torch.linalg.vector_norm(sums, dim=1, keepdim=True)
        units = torch.where(size > 0, sums / size, 0.0)
        observed = self.ranking.key(units.sum(1))
        flipped = self._largest(units @ signs)
        self.largest = torch.maximum(self.largest, flipped.cpu())
        best = observed.topk(min(LISTED, len(observed))).values.cpu()
        self.strongest = torch.cat([self.strongest, best]).sort(descending=True).values[:LISTED]
        here = (ranked >= start) & (ranked < start + len(sums))
        self.own[here.cpu()] = observed[ranked[here] - start].cpu()
        others = admitted.clone()
        others[ranked[here] - start] = False
        self._count(sums, weights, others)

    def _largest(self, statistics: Tensor) -> Tensor:
        low, high = statistics.aminmax(dim=0)
        if self.ranking.absolute:
            return torch.maximum(high, -low)
        return high if self.ranking.largest else -low

    def _count(self, sums: Tensor, weights: Tensor, others: Tensor) -> None:
        """Few latents beat any key where the ranked are few of many; only these are placed."""
        lowest = self.thresholds[:, 0].to(sums.device)
        keys = self.ranking.key(sums @ weights).masked_fill_(~others[:, None], -torch.inf)
        keys = keys[(keys > lowest).any(1)].T.contiguous().cpu()
        places = torch.searchsorted(self.thresholds, keys)
        self.counts.scatter_add_(1, places, torch.ones_like(places))

    def _on(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """Signs [segments, flips], weights [segments, resamples] and ranked there."""
        if device not in self._there:
            given = self.given
            signs, weights = (
                each.T.contiguous().to(device) for each in (given.signs, given.weights)
            )
            self._there[device] = (signs, weights, given.ranked.to(device))
        return self._there[device]

    def merge(self, ranks: Ranks) -> None:
        """Put together what all processes have, in the order of their tiles."""
        if ranks.size == 1:
            return
        parts = ranks.gather((self.largest, self.own, self.strongest, self.counts))
        largest, own, strongest, counts = zip(*parts, strict=True)
        self.largest = torch.stack(largest).amax(0)
        for other in own:
            self.own = torch.where(self.own.isnan(), other, self.own)
        self.strongest = torch.cat(strongest).sort(descending=True).values[:LISTED]
        self.counts = torch.stack(counts).sum(0)

    def result(self) -> Resampled:
        # A latent counted at place c beats the c lowest keys.
        beaten = self.counts.flip(1).cumsum(1).flip(1)[:, 1:]
        above = torch.empty_like(beaten).scatter_(1, self.order, beaten)
        return Resampled(self.largest, self.own, self.strongest, above.T)
