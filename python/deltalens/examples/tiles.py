"""Latent activations of a corpus, a tile at a time, into statistics and the windows kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from deltalens.examples.contexts import Batch
from deltalens.examples.exact_sums import GROUPS, grouped_sums
from deltalens.examples.options import ExampleOptions
from deltalens.examples.slots import Slots, Windows

HISTOGRAM_BINS = 64
_HISTOGRAM_LEAST = 2 * (127 - 16)  # 2^-16, as the exponent and first mantissa bit of a float32
_CONTEXTS = (1 << 32) - 1


class Events(NamedTuple):
    """Every activation above 0 of a tile, ordered by latent, then by token: [events] each."""

    latent: np.ndarray
    token: np.ndarray
    value: np.ndarray


class Peaks(NamedTuple):
    """The largest activation, of equal ones the first, of every active latent and context."""

    latent: np.ndarray
    token: np.ndarray
    value: np.ndarray
    context: np.ndarray


def histogram_edges() -> np.ndarray:
    """Lower edges float64 [HISTOGRAM_BINS]: 2^-16, 1.5 · 2^-16, 2^-15, …; the outermost bins also
    hold what lies beyond."""
    bits = (_HISTOGRAM_LEAST + np.arange(HISTOGRAM_BINS, dtype=np.int32)) << 22
    return bits.view(np.float32).astype(np.float64)


class Collector:
    """Statistics and kept windows of some latents: memory n_latents × windows, whatever the corpus.

    ``latents`` int64 [n] are their numbers in the SAE. active, windows: tokens and contexts with
    an activation above 0; sums: of the activations (see
    :func:`~deltalens.examples.exact_sums.grouped_sums`); largest; histogram: [n, bins] of
    activations above 0 (see :func:`histogram_edges`). ``sample`` is a uniform sample of all active
    windows: those with the largest hash of seed, latent and context. All of it is the same in
    whatever order and portions the corpus comes.
    """

    def __init__(self, latents: np.ndarray, options: ExampleOptions) -> None:
        n = len(latents)
        self._latents, self._options = latents, options
        self.active = np.zeros(n, dtype=np.int64)
        self.windows = np.zeros(n, dtype=np.int64)
        self.sums = np.zeros((n, GROUPS), dtype=np.int64)
        self.largest = np.zeros(n, dtype=np.float32)
        self.histogram = np.zeros((n, HISTOGRAM_BINS), dtype=np.int64)
        self.top = Slots(n, options.top, options.width)
        self.sample = Slots(n, options.sampled, options.width)

    def add(self, batch: Batch, start: int, z: Tensor) -> None:
        """z [tokens, n] of the latents ``start …`` of this collector, for the batch's tokens."""
        events = _events(z)
        if not len(events.value):
            return
        peaks = _peaks(events, batch.context)
        self._count(events, peaks, start, z.shape[1])
        cut = partial(self._cut, batch, z, peaks)
        latents = peaks.latent + start
        self.top.offer(latents, _by_value(peaks), cut)
        keys = _by_chance(self._options.seed, self._latents[latents], peaks.context)
        self.sample.offer(latents, keys, cut)

    def state(self) -> dict[str, np.ndarray]:
        """The arrays that hold everything; :meth:`restore` fills them in place."""
        return dict(self._arrays())

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Continue from what :meth:`state` gave."""
        for name, array in self._arrays():
            array[...] = state[name]

    def merge(self, start: int, part: Mapping[str, np.ndarray]) -> None:
        """Add what another collector's state has, of other contexts, in its rows ``start …``."""
        tile = slice(start, start + len(part["active"]))
        for name in ("active", "windows", "sums", "histogram"):
            getattr(self, name)[tile] += part[name]
        np.maximum(self.largest[tile], part["largest"], out=self.largest[tile])
        for name, slots in (("top", self.top), ("sample", self.sample)):
            windows = Windows(*(part[f"{name}.{field}"] for field in Windows._fields))
            slots.merge(start, part[f"{name}.keys"], windows)

    def _arrays(self) -> Iterator[tuple[str, np.ndarray]]:
        for name in ("active", "windows", "sums", "largest", "histogram"):
            yield name, getattr(self, name)
        for name, slots in (("top", self.top), ("sample", self.sample)):
            yield f"{name}.keys", slots.keys
            for field, array in slots.windows._asdict().items():
                yield f"{name}.{field}", array

    def _count(self, events: Events, peaks: Peaks, start: int, n: int) -> None:
        tile = slice(start, start + n)
        self.active[tile] += np.bincount(events.latent, minlength=n)
        self.windows[tile] += np.bincount(peaks.latent, minlength=n)
        self.sums[tile] += grouped_sums(events.latent, events.value, n)
        first = _starts(events.latent)
        largest = np.maximum.reduceat(events.value, first)
        which = events.latent[first] + start
        self.largest[which] = np.maximum(self.largest[which], largest)
        bins = (events.value.view(np.int32) >> 22) - _HISTOGRAM_LEAST
        cell = events.latent * HISTOGRAM_BINS + bins.clip(0, HISTOGRAM_BINS - 1)
        counts = np.bincount(cell, minlength=n * HISTOGRAM_BINS)
        self.histogram[tile] += counts.reshape(n, HISTOGRAM_BINS)

    def _cut(self, batch: Batch, z: Tensor, peaks: Peaks, which: np.ndarray) -> Windows:
        """Windows around the given peaks, no further than their contexts."""
        centre, latent = peaks.token[which], peaks.latent[which]
        around = np.arange(-self._options.before, self._options.after + 1)
        tokens = centre[:, None] + around
        inside = (tokens >= 0) & (tokens < len(batch.ids))
        tokens = tokens.clip(0, len(batch.ids) - 1)
        inside &= batch.context[tokens] == peaks.context[which][:, None]
        rows, columns = (torch.from_numpy(at).to(z.device) for at in (tokens, latent[:, None]))
        return Windows(
            ids=np.where(inside, batch.ids[tokens], -1),
            acts=np.where(inside, z[rows, columns].cpu().numpy(), np.float32(0)),
            text=batch.text[centre],
            position=batch.position[centre],
        )


def _events(z: Tensor) -> Events:
    by_latent = z.T.contiguous()
    latent, token = by_latent.nonzero(as_tuple=True)
    value = by_latent[latent, token]
    return Events(latent.cpu().numpy(), token.cpu().numpy(), value.cpu().numpy())


def _peaks(events: Events, context: np.ndarray) -> Peaks:
    run = _starts(events.latent, context[events.token])
    largest = np.maximum.reduceat(events.value, run)
    lengths = np.diff(run, append=len(events.value))
    reached = np.flatnonzero(events.value == np.repeat(largest, lengths))
    run_of = np.searchsorted(run, reached, side="right") - 1
    at = reached[_starts(run_of)]
    latent, token, value = (array[at] for array in events)
    return Peaks(latent, token, value, context[token])


def _starts(*columns: np.ndarray) -> np.ndarray:
    """Where a run of equal rows begins."""
    changes = np.zeros(len(columns[0]), dtype=bool)
    changes[0] = True
    for column in columns:
        changes[1:] |= column[1:] != column[:-1]
    return np.flatnonzero(changes)


def _by_value(peaks: Peaks) -> np.ndarray:
    """Keys in the order of the activations, which are positive; of equal ones the first context."""
    return (peaks.value.view(np.int32).astype(np.int64) << 32) | (_CONTEXTS - peaks.context)


def _by_chance(seed: int, latents: np.ndarray, contexts: np.ndarray) -> np.ndarray:
    """63 random bits that depend on nothing but the seed, the latent and the context."""
    mixed = _mixed(np.full(1, seed % (1 << 64), dtype=np.uint64))
    for part in (latents, contexts):
        mixed = _mixed(mixed ^ part.astype(np.uint64))
    return (mixed >> np.uint64(1)).astype(np.int64)


def _mixed(bits: np.ndarray) -> np.ndarray:
    """A step of the generator splitmix64 (Steele, Lea and Flood 2014)."""
    bits = bits + np.uint64(0x9E3779B97F4A7C15)
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))
