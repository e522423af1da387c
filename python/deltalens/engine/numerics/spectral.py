"""Upper bounds on the spectral norm of a matrix."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from deltalens.engine.numerics.norms import frobenius_bound, largest_magnitude
from deltalens.engine.numerics.precision import SMALLEST_NORMAL, gamma, power_of_two_scale

BF16_ROUNDOFF = 2.0**-8
MOST_SQUARINGS = 3
SQUARED_ROWS = 256  # at a time; only what lies right of them is multiplied
_SCALED_ROWS = 256
_TINY = SMALLEST_NORMAL[torch.float32]  # of bfloat16, too
_LARGEST_SCALE = 2.0**126
_SLACK = 1 + 2.0**-40  # of the fp64 arithmetic on bounds


def spectral_norm_bound(
    matrix: Tensor, *, enough: float = 0.0, squarings: int = MOST_SQUARINGS
) -> float:
    """A number that ‖matrix‖₂ does not exceed; finite fp32 or bfloat16 [d, d].

    ‖M‖₂² = ‖MᵀM‖₂, and ‖·‖₂ ≤ ‖·‖_F: after s squarings the bound exceeds a flat spectrum's norm by
    a factor of about d^(1/2^(s+1)). A squaring is a product of bfloat16 matrices, d³ FLOP for the
    half of it that symmetry leaves; what rounding does is added to the bound. There are at most
    ``squarings``, and none once the bound is at most ``enough``.
    """
    largest = largest_magnitude(matrix)
    if largest == 0.0:
        return 0.0
    rough = _scale(largest)
    norm = _frobenius(matrix, rough) / rough
    if squarings == 0 or norm <= enough:
        return norm
    scale = _scale(norm)
    unit, lost = _rounded(matrix, scale)
    return min(norm, (_bound(unit, max(0.0, enough * scale - lost), squarings) + lost) / scale)


def _scale(size: float) -> float:
    return min(max(power_of_two_scale(size), 1 / _LARGEST_SCALE), _LARGEST_SCALE)


def _rounded(matrix: Tensor, scale: float) -> tuple[Tensor, float]:
    """scale · matrix in bfloat16, and a bound on the norm of what that rounding took."""
    unit = torch.empty_like(matrix, dtype=torch.bfloat16)
    lost = []
    for rows, scaled in _scaled_rows(matrix, scale):
        unit[rows] = scaled
        lost.append(frobenius_bound(scaled - unit[rows].float()))
    return unit, math.hypot(*lost) + matrix.shape[0] * _TINY


def _bound(unit: Tensor, enough: float, squarings: int) -> float:
    """Of a bfloat16 matrix of norm near 1.

    The fp32 sums of MᵀM are off by at most γ_d ‖ |Mᵀ||M| ‖_F ≤ γ_d ‖M‖_F² in Frobenius norm,
    whatever their order, and are then rounded to bfloat16. A power of two takes nothing from the
    result's digits.
    """
    norm = _frobenius(unit, 1.0)
    if squarings == 0 or norm <= enough:
        return norm
    square = _square(unit)
    width, size = unit.shape[0], _frobenius(square, 1.0)
    sums = 1.01 * gamma(width + 2, torch.float32) * norm**2 + 8 * width**2 * _TINY
    off = BF16_ROUNDOFF * size + sums
    scale = _scale(size) if size else 1.0
    left = max(0.0, enough**2 - off)
    inside = _bound(square.mul_(scale), left * scale, squarings - 1) / scale
    return min(norm, (inside + off + width * _TINY) ** 0.5 * _SLACK)


def _square(unit: Tensor) -> Tensor:
    """unitᵀ unit, rounded once; the lower half is the upper one's."""
    square = torch.empty_like(unit)
    for start in range(0, unit.shape[0], SQUARED_ROWS):
        stop = start + SQUARED_ROWS
        square[start:stop, start:] = unit[:, start:stop].T @ unit[:, start:]
        square[stop:, start:stop] = square[start:stop, stop:].T
    return square


def _frobenius(matrix: Tensor, scale: float) -> float:
    return math.hypot(*(frobenius_bound(scaled) for _, scaled in _scaled_rows(matrix, scale)))


def _scaled_rows(matrix: Tensor, scale: float) -> Iterator[tuple[slice, Tensor]]:
    """fp32 a few rows at a time: a copy of the matrix may be large."""
    for start in range(0, matrix.shape[0], _SCALED_ROWS):
        rows = slice(start, start + _SCALED_ROWS)
        yield rows, matrix[rows].float() * scale
