"""Student's t without a statistics library."""

from __future__ import annotations

from functools import lru_cache

from deltalens.trials.verdicts.beta import incomplete_beta

_STEPS = 200


@lru_cache(maxsize=1024)
def t_quantile(share: float, freedom: float) -> float:
    """t with P(|T| ≤ t) = ``share`` for ``freedom`` degrees of freedom, both real."""
    low, high = 0.0, 1.0
    while _within(high, freedom) < share:
        low, high = high, 2 * high
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if _within(middle, freedom) < share else (low, middle)
    return high


def _within(t: float, freedom: float) -> float:
    """P(|T| ≤ t)."""
    return 1 - incomplete_beta(freedom / 2, 0.5, freedom / (freedom + t * t))
