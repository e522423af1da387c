"""The regularised incomplete beta function, behind Student's t and shares of counts."""

from __future__ import annotations

import math

_STEPS = 200
_TINY = 1e-300


def incomplete_beta(a: float, b: float, x: float) -> float:
    """I_x(a, b), P(X ≤ x) of a Beta(a, b) variable (DLMF 8.17.22, by Lentz's method)."""
    if x > (a + 1) / (a + b + 2):
        return 1 - incomplete_beta(b, a, 1 - x)
    if x <= 0:
        return 0.0
    logs = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    front = math.exp(logs + a * math.log(x) + b * math.log1p(-x)) / a
    return front / _fraction(a, b, x)


def _fraction(a: float, b: float, x: float) -> float:
    """1 + d₁/(1 + d₂/(1 + …))."""
    value, up, down = 1.0, 1.0, 0.0
    for step in range(1, _STEPS):
        term = _term(a, b, x, step)
        down = 1 / (_safe(1 + term * down))
        up = _safe(1 + term / up)
        value *= up * down
        if abs(up * down - 1) < 1e-15:
            break
    return value


def _term(a: float, b: float, x: float, step: int) -> float:
    half = step // 2
    if step % 2:
        return -(a + half) * (a + b + half) * x / ((a + 2 * half) * (a + 2 * half + 1))
    return half * (b - half) * x / ((a + 2 * half - 1) * (a + 2 * half))


def _safe(value: float) -> float:
    return value if abs(value) > _TINY else _TINY
