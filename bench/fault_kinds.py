"""Faults as kernels have them, put into what a scorer returns or is prepared with.

A fault has a kind, a place and a seed, and is the same on every run.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from deltalens.engine.problem import Problem
from deltalens.engine.tile import Scorer, TileScores

BLOCK = 128  # decoder rows of a program on a GPU
PLACES = ("anywhere", "at the best")


@dataclass(frozen=True)
class Fault:
    """kind: one of :data:`KINDS`; place: anywhere, or where the best latent is."""

    kind: str
    place: str
    seed: int


@dataclass
class FaultyScorer:
    """A scorer whose results over a decoder, tile after tile, a fault spoils."""

    right: Scorer
    spoil: Callable[[Tensor, int], Tensor]
    start: int = 0

    def scores(self, rows: Tensor) -> Tensor:
        return self._spoilt(self.right.scores(rows))

    def scores_and_error(self, rows: Tensor, norms: Tensor) -> TileScores:
        scored = self.right.scores_and_error(rows, norms)
        return TileScores(self._spoilt(scored.scores), scored.error)

    def _spoilt(self, scores: Tensor) -> Tensor:
        start, self.start = self.start, self.start + scores.shape[1]
        return self.spoil(scores.clone(), start)


def with_fault(problem: Problem, fault: Fault, best: int) -> Problem:
    """The problem, whose scorer and screen have the fault."""
    choose = random.Random(fault.seed)
    n_latents = problem.decoder.n_latents
    row = best if fault.place == "at the best" else choose.randrange(n_latents)
    spoil = KINDS[fault.kind](row, n_latents, choose)

    def faulty(make: Callable[[], Scorer]) -> Callable[[], Scorer]:
        return lambda: FaultyScorer(make(), spoil)

    screen = None if problem.screen is None else faulty(problem.screen)
    return replace(problem, scorer=faulty(problem.scorer), screen=screen)


_Spoil = Callable[[Tensor, int], Tensor]


def _rows(first: int, last: int, change: Callable[[Tensor], Tensor]) -> _Spoil:
    """``change`` of the scores of latents first … last − 1."""

    def spoil(scores: Tensor, start: int) -> Tensor:
        inside = slice(max(0, first - start), max(0, last - start))
        if scores[:, inside].numel():
            scores[:, inside] = change(scores[:, inside])
        return scores

    return spoil


def _dropped_last_block(row: int, n_latents: int, choose: random.Random) -> _Spoil:
    """The last rows, fewer than a block, are never written: zeros, or what was there."""
    size = choose.randrange(1, BLOCK)
    left = choose.choice([0.0, -1e30, torch.nan])
    return _rows(n_latents - size, n_latents, lambda scores: torch.full_like(scores, left))


def _stale_accumulator(row: int, n_latents: int, choose: random.Random) -> _Spoil:
    """Every block but a tile's first starts with what the one before had added up."""

    def spoil(scores: Tensor, start: int) -> Tensor:
        before = scores.roll(BLOCK, 1)
        scores[:, BLOCK:] += before[:, BLOCK:]
        return scores

    return spoil


def _wrong_tile(row: int, n_latents: int, choose: random.Random) -> _Spoil:
    """A block has the scores of its rows in another order, or is scaled."""
    first = row // BLOCK * BLOCK
    shift, scale = choose.randrange(1, BLOCK), choose.choice([0.5, 0.0, -1.0])
    change = choose.choice([lambda scores: scores.roll(shift, 1), lambda scores: scores * scale])
    return _rows(first, first + BLOCK, change)


def _wrong_large_tile(row: int, n_latents: int, choose: random.Random) -> _Spoil:
    """What one copy to a device brings, 4096 rows, is that of the time before."""
    size, shift = 4096, choose.randrange(1, 999)
    first = row // size * size
    return _rows(first, first + size, lambda scores: scores.roll(shift, 1))


def _swapped_parts(row: int, n_latents: int, choose: random.Random) -> _Spoil:
    """An operand's lower part belongs to other tokens: every score is off by some 2⁻⁹ of it."""
    noise = torch.Generator().manual_seed(choose.randrange(1 << 30))

    def spoil(scores: Tensor, start: int) -> Tensor:
        size = scores.abs().mean(1, keepdim=True)
        return scores + 2.0**-9 * size * torch.randn(scores.shape, generator=noise)

    return spoil


def _flipped_bit(row: int, n_latents: int, choose: random.Random) -> _Spoil:
    """One bit of the exponent of one fp32 score."""
    bit = 23 + choose.randrange(8)
    return _rows(row, row + 1, lambda scores: _flip(scores, bit))


def _flip(scores: Tensor, bit: int) -> Tensor:
    flipped = scores.float().view(torch.int32) ^ torch.tensor(
        (1 << bit) - (1 << 32 if bit == 31 else 0), dtype=torch.int32
    )
    return flipped.view(torch.float32).double()


KINDS: dict[str, Callable[[int, int, random.Random], _Spoil]] = {
    "last block dropped": _dropped_last_block,
    "stale accumulator": _stale_accumulator,
    "one wrong block of 128 rows": _wrong_tile,
    "one wrong tile of 4096 rows": _wrong_large_tile,
    "swapped parts": _swapped_parts,
    "a flipped exponent bit": _flipped_bit,
}
