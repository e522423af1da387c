"""Means over texts and prompts that are samples, of which each has many tokens or answers."""

from __future__ import annotations

import math
from collections.abc import Sequence

from deltalens.trials.side_effects.effects import Estimate
from deltalens.trials.verdicts.student import t_quantile


def ratio(totals: Sequence[float], sizes: Sequence[float]) -> Estimate:
    """Σ totals / Σ sizes, such as nats by tokens, the units being the sample.

    The variance is that of the linearised ratio (Cochran 1977, Sampling Techniques, ch. 6), with
    Student's t of one degree of freedom less than there are units.
    """
    count, size = len(totals), math.fsum(sizes)
    value = math.fsum(totals) / size
    if count < 2:
        return Estimate(value, None)
    squares = math.fsum((x - value * n) ** 2 for x, n in zip(totals, sizes, strict=True))
    if squares == 0:
        return Estimate(value, None)
    error = math.sqrt(squares * count / (count - 1)) / size
    half = t_quantile(0.95, count - 1) * error
    return Estimate(value, (value - half, value + half))


def share(totals: Sequence[float], sizes: Sequence[float]) -> Estimate:
    """As :func:`ratio`, of what cannot be below 0 or above 1."""
    found = ratio(totals, sizes)
    if found.interval is None:
        return found
    low, high = found.interval
    return Estimate(found.value, (max(0.0, low), min(1.0, high)))
