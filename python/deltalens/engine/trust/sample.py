"""The rows of a decoder whose scores every scan computes twice, and what it told of them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from deltalens.engine.decoder import Decoder
from deltalens.ranks.ranks import Ranks

_LEAST, _MOST = 64, 256
_ROWS_EACH = 2048
_BLOCK = 128  # rows that a program of a GPU scores
_MOST_BLOCKS = 2048
_HELD_BYTES = 32 << 20
_MASK = (1 << 64) - 1


@lru_cache(maxsize=64)
def sampled(n_latents: int) -> tuple[int, ...]:
    """One latent of every stretch, in rising order: by a hash of the stretch, of the last one the
    decoder's last.

    64 stretches up to 131,072 latents, then one for 2,048 up to 256; all latents of fewer than 64.
    """
    count = min(n_latents, max(_LEAST, min(_MOST, n_latents // _ROWS_EACH)))
    edges = [n_latents * stretch // count for stretch in range(count + 1)]
    inside = [
        edges[stretch] + _hash(stretch) % (edges[stretch + 1] - edges[stretch])
        for stretch in range(count - 1)
    ]
    return (*inside, n_latents - 1)


@lru_cache(maxsize=64)
def looked_at(n_latents: int, row_bytes: int) -> tuple[int, ...]:
    """One latent of every 128, by a hash of the block, or of so many more that there are at most
    2048 and their rows take 32 MiB; in rising order."""
    most = min(_MOST_BLOCKS, max(_LEAST, _HELD_BYTES // row_bytes))
    size = max(_BLOCK, -(-n_latents // most))
    starts = range(0, n_latents, size)
    return tuple(start + _hash(start) % min(size, n_latents - start) for start in starts)


def _within(latents: tuple[int, ...], start: int, stop: int) -> Tensor:
    """Those of rising latents, int64."""
    return torch.tensor(latents[bisect_left(latents, start) : bisect_left(latents, stop)]).long()


def _hash(number: int) -> int:
    """SplitMix64 (G. L. Steele, D. Lea and C. H. Flood, 2014)."""
    mixed = (number + 1) * 0x9E3779B97F4A7C15 & _MASK
    mixed = (mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
    mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EB & _MASK
    return mixed ^ (mixed >> 31)


class Told(NamedTuple):
    """What a scan told of some latents of a query: the ends of their keys' intervals, NaN for those
    that it says cannot rank."""

    latents: Tensor  # int64 [m]
    lower: Tensor  # fp64 [m]
    upper: Tensor


def together(told: Sequence[Told], device: torch.device) -> Told:
    """All of it on one device."""
    return Told(*(torch.cat([part.to(device) for part in of]) for of in zip(*told, strict=True)))


@dataclass
class Spots:
    """Gathers what is told of the sample, tile by tile."""

    n_latents: int
    _latents: list[Tensor] = field(default_factory=list)
    _values: list[Tensor] = field(default_factory=list)  # fp64 [kinds, queries, m]

    def take(self, start: int, *values: Tensor) -> None:
        """``values`` [queries, n] each, of the latents ``start … start + n - 1``."""
        here = _within(sampled(self.n_latents), start, start + values[0].shape[1])
        if len(here):
            columns = (here - start).to(values[0].device)
            self._latents.append(here)
            self._values.append(torch.stack([each[:, columns] for each in values]))

    def of_all(self, ranks: Ranks) -> tuple[Tensor, Tensor]:
        """Latents int64 [m] on the CPU and values fp64 [kinds, queries, m], of all processes."""
        if ranks.size == 1:
            return torch.cat(self._latents), torch.cat(self._values, 2)
        own = [each.cpu() for each in self._values]
        parts = ranks.gather((self._latents, own))
        latents = torch.cat([each for part in parts for each in part[0]])
        values = torch.cat([each for part in parts for each in part[1]], 2)
        return latents, values.to(self._values[0].device) if self._values else values


class SecondLook:
    """Rows that are scored again at the end of a scan, all in one call and so in other places, with
    what they got at first; a copy of one row in 128."""

    def __init__(self, decoder: Decoder, searches: int) -> None:
        row_bytes = decoder.d_model * decoder.dtype.itemsize
        self._of_decoder = looked_at(decoder.n_latents, row_bytes)
        self._latents: list[Tensor] = []
        self._rows: list[Tensor] = []
        self._ends: list[list[tuple[Tensor, Tensor]]] = [[] for _ in range(searches)]

    def begin(self, start: int, rows: Tensor) -> Tensor:
        """Keep the rows of a tile; their places in it, on its device."""
        here = _within(self._of_decoder, start, start + len(rows))
        places = (here - start).to(rows.device)
        self._latents.append(here)
        self._rows.append(rows.index_select(0, places))
        return places

    def take(self, search: int, lower: Tensor, upper: Tensor) -> None:
        """The ends [queries, m] that a search gave those rows."""
        self._ends[search].append((lower, upper))

    def rows(self) -> Tensor:
        """All kept rows [m, d_model]."""
        return torch.cat(self._rows)

    def told(self, search: int) -> list[Told]:
        """Of each query, what the search told of them at first."""
        lower, upper = (torch.cat(ends, 1) for ends in zip(*self._ends[search], strict=True))
        latents = torch.cat(self._latents)
        return [Told(latents, *ends) for ends in zip(lower, upper, strict=True)]

    @property
    def any(self) -> bool:
        """Whether there are rows."""
        return bool(sum(map(len, self._latents)))
