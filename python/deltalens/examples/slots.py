"""For many latents at once, the few windows with the largest keys."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

_EMPTY = -1


class Windows(NamedTuple):
    """Windows of tokens around their peaks, in arrays whose last axis is the width where named.

    ids: int32 [..., width], -1 outside the context; acts: float32 [..., width]; text and position
    of the peak: int64 [...].
    """

    ids: np.ndarray
    acts: np.ndarray
    text: np.ndarray
    position: np.ndarray

    @classmethod
    def empty(cls, shape: tuple[int, ...], width: int) -> Windows:
        return cls(
            np.full((*shape, width), _EMPTY, dtype=np.int32),
            np.zeros((*shape, width), dtype=np.float32),
            np.zeros(shape, dtype=np.int64),
            np.zeros(shape, dtype=np.int64),
        )


class Slots:
    """The ``size`` windows with the largest keys of each of ``n_latents`` latents.

    ``keys`` int64 [n_latents, size], descending, -1 where there is none; ``windows`` [n_latents,
    size]. Keys of one latent differ, so that what is kept depends on all that was offered, not on
    the order or the portions it came in.
    """

    def __init__(self, n_latents: int, size: int, width: int) -> None:
        self.size = size
        self.keys = np.full((n_latents, size), _EMPTY, dtype=np.int64)
        self.windows = Windows.empty((n_latents, size), width)

    def offer(
        self, latents: np.ndarray, keys: np.ndarray, cut: Callable[[np.ndarray], Windows]
    ) -> None:
        """Candidates with ``keys`` ≥ 0 of ``latents``, int64 [m] each.

        ``cut(which)`` makes the windows [len(which)] of candidates ``which``; it is called for
        those that are kept only.
        """
        if not self.size:
            return
        better = np.flatnonzero(keys > self.keys[latents, -1])
        if not len(better):
            return
        rows, row, column, candidates = self._best_offered(latents, keys, better)
        offered = np.full((len(rows), self.size), _EMPTY, dtype=np.int64)
        offered[row, column] = keys[candidates]
        both = np.concatenate([self.keys[rows], offered], axis=1)
        order = np.argsort(-both, axis=1, kind="stable")[:, : self.size]
        self.keys[rows] = np.take_along_axis(both, order, axis=1)
        which = np.zeros_like(offered)
        which[row, column] = candidates
        self._move(rows, order, which, cut)

    def merge(self, start: int, keys: np.ndarray, windows: Windows) -> None:
        """Offer what other slots hold of the latents ``start …``: ``keys`` [n, size] and
        ``windows`` [n, size]."""
        row, column = np.nonzero(keys != _EMPTY)

        def held(which: np.ndarray) -> Windows:
            return Windows(*(field[row[which], column[which]] for field in windows))

        self.offer(start + row, keys[row, column], held)

    def _best_offered(
        self, latents: np.ndarray, keys: np.ndarray, better: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Of each latent at most ``size``: the latents, and each candidate's row and rank there."""
        better = better[np.lexsort((-keys[better], latents[better]))]
        rows, first, row = np.unique(latents[better], return_index=True, return_inverse=True)
        rank = np.arange(len(better)) - first[row]
        kept = rank < self.size
        return rows, row[kept], rank[kept], better[kept]

    def _move(
        self,
        rows: np.ndarray,
        order: np.ndarray,
        which: np.ndarray,
        cut: Callable[[np.ndarray], Windows],
    ) -> None:
        """Bring the windows of ``rows`` into ``order`` [rows, size]: places from ``size`` on are
        the candidates ``which`` [rows, size]."""
        new = order >= self.size
        new &= np.take_along_axis(self.keys, rows[:, None], axis=0) != _EMPTY
        fresh = cut(np.take_along_axis(which, order % self.size, axis=1)[new])
        old = np.minimum(order, self.size - 1)
        for kept, cut_now in zip(self.windows, fresh, strict=True):
            moved = kept[rows[:, None], old]
            moved[new] = cut_now
            kept[rows] = moved
