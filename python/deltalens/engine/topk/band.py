"""The latents that may belong to the top-k of each query, from intervals of their keys."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from deltalens.engine.topk.held import Ends, Held, Kept, kept, merged_candidates
from deltalens.engine.topk.streaming import QueriesTopK, TopKPath, queries_topk
from deltalens.ranks.ranks import ALONE, Ranks


def upper_room(k: int) -> int:
    """How many upper ends are kept for the ``k`` best."""
    return 4 * k + 4096


class Band:
    """Streams the k largest lower ends, and the largest upper ends that may still matter.

    Ends come as fp64 [queries, n] and are ranked on ``path``, see
    :func:`deltalens.engine.topk.streaming.queries_topk`. Where that takes float32 they are scaled
    by a power of two and rounded outwards, so that an interval only grows.
    """

    def __init__(self, k: int, queries: int = 1, path: TopKPath = "streaming") -> None:
        self._k, self._queries = k, queries
        self._room = upper_room(k)
        self._seen = 0
        self._lower = _Ends(queries_topk(k, queries, path), -math.inf)
        self._upper = _Ends(queries_topk(self._room, queries, path), math.inf)
        self._narrow = path != "streaming"
        # Powers of two, 0 while nothing finite was pushed; fp64 [queries, 1].
        self._unit: Tensor | None = None

    def push(self, lower: Tensor, upper: Tensor, start: int) -> None:
        """Add the ends of the latents ``start … start + n - 1``; NaN for those that cannot rank."""
        self._seen += lower.shape[1]
        if self._narrow:
            size = _size(upper)
            self._unit = (
                size if self._unit is None else torch.where(self._unit > 0, self._unit, size)
            )
        self._lower.push(lower, self._unit, start)
        self._upper.push(upper, self._unit, start)

    def candidates(self, ranks: Ranks = ALONE) -> list[Kept]:
        """What is kept of each query, from what all ``ranks`` have pushed."""
        if ranks.size > 1:
            return merged_candidates(ranks.gather(self._held()), self._k, self._room)
        everything = self._seen <= self._room
        return [
            kept(lower, upper, self._k, everything)
            for lower, upper in zip(
                self._in_full(self._lower), self._in_full(self._upper), strict=True
            )
        ]

    def _held(self) -> Held:
        if not self._seen:
            nothing, none = torch.empty(0, dtype=torch.float64), torch.empty(0, dtype=torch.int64)
            return Held([(nothing, none)] * self._queries, [(nothing, none)] * self._queries, 0)
        lower, upper = (
            [(ends.cpu(), at.cpu()) for ends, at in self._in_full(side)]
            for side in (self._lower, self._upper)
        )
        return Held(lower, upper, self._seen)

    def _in_full(self, side: _Ends) -> list[Ends]:
        """The ends as they were before a path's power of two took them to float32, and latents."""
        found = [(ends.double(), at) for ends, at in side.ranking.results()]
        if self._unit is None:
            return found
        units = torch.where(self._unit > 0, self._unit, 1.0)
        return [(ends * unit, at) for (ends, at), unit in zip(found, units, strict=True)]


class _Ends:
    """One side of all intervals."""

    def __init__(self, ranking: QueriesTopK, outwards: float) -> None:
        self.ranking = ranking
        self._outwards = outwards

    def push(self, ends: Tensor, unit: Tensor | None, start: int) -> None:
        if unit is not None:
            ends = _rounded(ends, unit, self._outwards)
        self.ranking.push(ends, start)


def _size(ends: Tensor) -> Tensor:
    """The power of two just below the largest finite magnitude of each query, 0 for none."""
    largest = ends.nan_to_num(0.0, 0.0, 0.0).abs().amax(1, keepdim=True)
    return torch.where(largest > 0, largest / (2 * torch.frexp(largest).mantissa), 0.0)


def _rounded(ends: Tensor, unit: Tensor, toward: float) -> Tensor:
    """float32 numbers r with r · unit not on the other side of fp64 ``ends``; NaN stays."""
    unit = torch.where(unit > 0, unit, 1.0)
    nearest = (ends / unit).float()
    back = nearest.double() * unit
    inwards = back < ends if toward > 0 else back > ends
    return torch.where(inwards, nearest.nextafter(torch.full_like(nearest, toward)), nearest)
