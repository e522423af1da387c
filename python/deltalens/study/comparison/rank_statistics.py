"""How alike two rankings are: rank correlation, and overlap against chance."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def spearman(x: Tensor, y: Tensor) -> float:
    """Spearman's ρ: Pearson's correlation of the ranks, equal values sharing their mean rank.

    x, y: [n]. NaN for fewer than two values, or where all values of one are equal.
    """
    ranks = torch.stack([mean_ranks(x), mean_ranks(y)])
    ranks -= ranks.mean(dim=1, keepdim=True)
    scale = float(ranks.norm(dim=1).prod())
    if len(x) < 2 or not scale > 0:
        return math.nan
    return max(-1.0, min(1.0, float(ranks.prod(dim=0).sum()) / scale))


def mean_ranks(values: Tensor) -> Tensor:
    """Ranks from 1 for the smallest, float64 [n]; equal values share the mean of their ranks."""
    _, group, counts = values.unique(sorted=True, return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    return (last - (counts - 1) / 2)[group]


def overlap_probability(shared: int, first: int, second: int, total: int) -> float:
    """Probability that two lists of ``first`` and ``second`` of ``total`` items share ``shared`` or
    more when drawn at random: the upper tail of the hypergeometric distribution."""
    least = max(shared, first + second - total, 0)
    whole = _log_choose(total, second)
    terms = (
        _log_choose(first, n) + _log_choose(total - first, second - n) - whole
        for n in range(least, min(first, second) + 1)
    )
    return min(1.0, math.fsum(map(math.exp, terms)))


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
