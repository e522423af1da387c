"""How a latent's terms −w_t (γ_t·d)((a_t − ā)·d) are put together over tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from deltalens.errors import InputError

REDUCTIONS = ("sum", "abs", "positive", "max")


def check_reduction(reduction: str) -> None:
    """``reduction`` is one of :data:`REDUCTIONS`."""
    if reduction not in REDUCTIONS:
        raise InputError(f"reduction must be one of {', '.join(REDUCTIONS)}, got {reduction!r}")


def reduce_terms(terms: Tensor, reduction: str) -> Tensor:
    """fp64 [n] from terms [n, tokens], which may be overwritten."""
    if reduction == "max":
        return terms.amax(1).double()
    if reduction == "abs":
        terms.abs_()
    elif reduction == "positive":
        terms.clamp_(min=0)
    return terms.sum(1, dtype=torch.float64)


def combine(partial: Iterator[Tensor], reduction: str) -> Tensor:
    """One fp64 result from those of several groups of tokens, in their order."""
    total = next(partial)
    for value in partial:
        total = torch.maximum(total, value) if reduction == "max" else total.add_(value)
    return total


class SegmentStatistics(NamedTuple):
    """Over a number of segments of tokens, of each segment's sum; fp64 [n]."""

    mean: Tensor
    spread: Tensor  # sum of squared deviations from the mean
    segments: int

    def merge(self, other: SegmentStatistics) -> SegmentStatistics:
        """Over the segments of both (T. F. Chan, G. H. Golub and R. J. LeVeque, 1983)."""
        count = self.segments + other.segments
        delta = other.mean - self.mean
        mean = self.mean + delta * (other.segments / count)
        between = delta.square() * (self.segments * other.segments / count)
        return SegmentStatistics(mean, self.spread + other.spread + between, count)

    def scaled(self, scale: float) -> SegmentStatistics:
        """Of sums multiplied by ``scale``."""
        return SegmentStatistics(self.mean * scale, self.spread * scale**2, self.segments)


def segment_statistics(terms: Tensor, lengths: Sequence[int]) -> SegmentStatistics:
    """From terms [n, tokens] of whole segments of the given lengths."""
    segments = terms.split(list(lengths), 1)
    sums = torch.stack([part.sum(1, dtype=torch.float64) for part in segments], 1)
    mean = sums.mean(1)
    return SegmentStatistics(mean, (sums - mean[:, None]).square_().sum(1), len(lengths))
