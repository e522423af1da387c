"""Upper bounds on the spectral norm of a matrix."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from deltalens.engine.numerics.norms import frobenius_bound, largest_magnitude
from deltalens.engine.numerics.precision import SMALLEST_NORMAL, gamma, power_of_two_scale

# One rounding to bfloat16, and before it the few to fp32 that gave the matrix.
BF16_ROUNDOFF = 1.01 * 2.0**-9
_SQUARED_ROWS = 1024  # at a time: a product's scratch memory is as large as its operands


def spectral_norm_bound(matrix: Tensor, squarings: int = 2) -> float:
    """A number that ‖matrix‖₂ does not exceed, nor that of the real matrix it is the rounding of.

    matrix: finite fp32 or bfloat16 [d, d]; a rounding to bfloat16 is not counted as one to fp32 is.

    ‖M‖₂² = ‖MᵀM‖₂, and ‖·‖₂ ≤ ‖·‖_F: after s squarings the bound exceeds a flat spectrum's norm by
    a factor of about d^(1/2^(s+1)). A squaring is a product of bfloat16 matrices, 2·d³ FLOP, whose
    rounding is added to the bound.
    """
    largest = largest_magnitude(matrix)
    if largest == 0.0:
        return 0.0
    scale = power_of_two_scale(largest)
    return _bound(matrix, scale, squarings) / scale


def _bound(matrix: Tensor, scale: float, squarings: int) -> float:
    """The same for fp32 or bfloat16 that ``scale`` brings near 1, of the scaled matrix.

    For M of ‖M‖_F = 1, rounded to M̂ = M + δ: ‖M‖₂ ≤ ‖M̂‖₂ + ‖δ‖_F. The fp32 sums of M̂ᵀM̂ are off by
    at most γ_d ‖ |M̂ᵀ||M̂| ‖_F ≤ γ_d ‖M̂‖_F² in Frobenius norm, whatever their order, and are then
    rounded to bfloat16.
    """
    norm = _frobenius(matrix, scale)
    if squarings == 0:
        return norm
    unit = torch.empty_like(matrix, dtype=torch.bfloat16)
    for rows, scaled in _scaled_rows(matrix, scale):
        unit[rows] = scaled / norm
    square = torch.empty_like(unit)
    for start in range(0, square.shape[0], _SQUARED_ROWS):
        rows = slice(start, start + _SQUARED_ROWS)
        square[rows] = unit[:, rows].T @ unit
    del unit
    width = matrix.shape[0]
    sums = 1.01 * gamma(width + 2, torch.float32) + width**2 * SMALLEST_NORMAL[torch.float32]
    rounding = BF16_ROUNDOFF * _frobenius(square, 1.0) + sums
    return norm * ((_bound(square, 1.0, squarings - 1) + rounding) ** 0.5 + BF16_ROUNDOFF)


def _frobenius(matrix: Tensor, scale: float) -> float:
    return math.hypot(*(frobenius_bound(scaled) for _, scaled in _scaled_rows(matrix, scale)))


def _scaled_rows(matrix: Tensor, scale: float) -> Iterator[tuple[slice, Tensor]]:
    """fp32 a few rows at a time: a copy of the matrix may be large."""
    for start in range(0, matrix.shape[0], 256):
        rows = slice(start, start + 256)
        yield rows, matrix[rows].float() * scale
