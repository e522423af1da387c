"""How well scores tell texts with a behaviour from those without, where texts come in clusters."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from deltalens.errors import InputError

Z_95 = 1.959963984540054
_TAIL = 0.025


class AUC(NamedTuple):
    """P(a text that shows it scores higher than one that does not), ties counted half.

    low, high: the 95 % interval; stderr: of the value itself. They are NaN where they are not
    known: with fewer than two clusters of a kind, and where all scores are equal.
    """

    value: float
    low: float
    high: float
    stderr: float


def aucs(scores: Tensor, shown: Tensor, clusters: Tensor) -> list[AUC]:
    """Of every column of ``scores`` fp64 [texts, columns].

    shown: bool [texts]; clusters: int64 [texts], equal for texts that belong together, such as
    answers to one prompt, of either kind. The variance is that of Obuchowski (1997, Biometrics 53,
    567), which is DeLong's (1988) where each text is a cluster; the interval is symmetric on the
    logit scale. Where the two kinds do not overlap it ends at 0 or 1, and begins where so many
    independent comparisons that all come out one way have a probability of 2.5 %.

    Raises :class:`InputError` where there are no texts of a kind.
    """
    above, below = scores[shown].T.contiguous(), scores[~shown].T.contiguous()
    if not above.shape[1] or not below.shape[1]:
        raise InputError(
            f"{above.shape[1]} texts show the behaviour and {below.shape[1]} do not; telling them "
            "apart takes some of both"
        )
    over = _shares_below(above, below)  # of each text that shows it: [columns, texts]
    under = 1 - _shares_below(below, above)
    values = over.mean(1)
    _, numbers = clusters.unique(return_inverse=True)
    variances = _variances(over, under, values, numbers[shown], numbers[~shown])
    comparisons = _comparisons(numbers[shown], numbers[~shown])
    return [
        _interval(value, variance, comparisons)
        for value, variance in zip(values.tolist(), variances.tolist(), strict=True)
    ]


def _shares_below(scores: Tensor, others: Tensor) -> Tensor:
    """Of each of ``scores`` [columns, n], the share of ``others`` [columns, m] below it, equal ones
    counted half."""
    ordered = others.sort(dim=1).values
    ends = [torch.searchsorted(ordered, scores, right=right) for right in (False, True)]
    return (ends[0] + ends[1]).double() / (2 * others.shape[1])


def _variances(
    over: Tensor, under: Tensor, values: Tensor, shown: Tensor, absent: Tensor
) -> Tensor:
    """[columns]; shown, absent: each text's cluster."""
    clusters = int(torch.cat([shown, absent]).max()) + 1
    both = len(torch.cat([shown, absent]).unique())
    sums, kinds = [], []
    for shares, of in ((over, shown), (under, absent)):
        centred = (shares - values[:, None]) / shares.shape[1]
        sums.append(centred.new_zeros(len(values), clusters).index_add_(1, of, centred))
        kinds.append(len(of.unique()))
    a, b = sums
    return (
        _unbiased(kinds[0]) * a.square().sum(1)
        + _unbiased(kinds[1]) * b.square().sum(1)
        + 2 * _unbiased(both) * (a * b).sum(1)
    )


def _unbiased(clusters: int) -> float:
    return clusters / (clusters - 1) if clusters > 1 else math.nan


def _comparisons(shown: Tensor, absent: Tensor) -> int:
    """How many pairs of a text of each kind there are of which no two share a cluster, nor the
    texts of one."""
    kinds = [len(of.unique()) for of in (shown, absent)]
    return min(*kinds, len(torch.cat([shown, absent]).unique()) // 2)


def _interval(value: float, variance: float, comparisons: int) -> AUC:
    stderr = math.sqrt(variance) if variance == variance else math.nan
    if value in (0.0, 1.0) and comparisons > 0:
        end = _TAIL ** (1 / comparisons)
        low, high = (end, 1.0) if value else (0.0, 1 - end)
        return AUC(value, low, high, stderr)
    if not stderr > 0:
        return AUC(value, math.nan, math.nan, math.nan)
    centre, half = math.log(value / (1 - value)), Z_95 * stderr / (value * (1 - value))
    return AUC(value, _logistic(centre - half), _logistic(centre + half), stderr)


def _logistic(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x > 0 else math.exp(x) / (1 + math.exp(x))
