"""Upper bounds on the spectral norm of a matrix."""

from __future__ import annotations

import torch
from torch import Tensor

from deltalens.engine.norms import frobenius_bound, largest_magnitude
from deltalens.engine.precision import SMALLEST_NORMAL, gamma, power_of_two_scale

# One rounding to bfloat16, and before it the few to fp32 that gave the matrix.
_BF16_ROUNDOFF = 1.01 * 2.0**-9


def spectral_norm_bound(matrix: Tensor, squarings: int = 2) -> float:
    """A number that ‖matrix‖₂ does not exceed, nor that of the real matrix it is the rounding of.

    matrix: finite fp32 [d, d].

    ‖M‖₂² = ‖MᵀM‖₂, and ‖·‖₂ ≤ ‖·‖_F: after s squarings the bound exceeds a flat spectrum's norm by
    a factor of about d^(1/2^(s+1)). A squaring is a product of bfloat16 matrices, 2·d³ FLOP, whose
    rounding is added to the bound.
    """
    largest = largest_magnitude(matrix)
    if largest == 0.0:
        return 0.0
    scale = power_of_two_scale(largest)
    return _bound(matrix * scale, squarings) / scale


def _bound(matrix: Tensor, squarings: int) -> float:
    """The same for fp32 with magnitudes near 1.

    For M of ‖M‖_F = 1, rounded to M̂ = M + δ: ‖M‖₂ ≤ ‖M̂‖₂ + ‖δ‖_F. The fp32 sums of M̂ᵀM̂ are off by
    at most γ_d ‖ |M̂ᵀ||M̂| ‖_F ≤ γ_d ‖M̂‖_F² in Frobenius norm, whatever their order, and are then
    rounded to bfloat16.
    """
    norm = frobenius_bound(matrix)
    if squarings == 0:
        return norm
    width = matrix.shape[0]
    unit = (matrix / norm).bfloat16()
    square = (unit.T @ unit).float()
    sums = 1.01 * gamma(width + 2, torch.float32) + width**2 * SMALLEST_NORMAL[torch.float32]
    rounding = _BF16_ROUNDOFF * frobenius_bound(square) + sums
    return norm * ((_bound(square, squarings - 1) + rounding) ** 0.5 + _BF16_ROUNDOFF)
