"""Upper bounds on the spectral norm of a matrix."""

from __future__ import annotations

import torch
from torch import Tensor

from deltalens.engine.precision import SMALLEST_NORMAL, UNIT_ROUNDOFF, gamma


def spectral_norm_bound(matrix: Tensor, squarings: int = 2) -> float:
    """A number that ‖matrix‖₂ does not exceed, for finite fp32 [d, d].

    ‖M‖₂² = ‖MᵀM‖₂, and ‖·‖₂ ≤ ‖·‖_F: after s squarings the bound exceeds a flat spectrum's norm by
    a factor of about d^(1/2^(s+1)) and costs 2·s·d³ FLOP. With ‖M‖_F = 1 the rounding of a squaring
    in fp32 has Frobenius norm at most γ_d ‖ |Mᵀ||M| ‖_F ≤ γ_d, whatever the order of summation.
    """
    norm = float(torch.linalg.matrix_norm(matrix, dtype=torch.float64)) * (1 + 2.0**-40)
    if squarings == 0 or norm == 0.0:
        return norm
    unit = (matrix.double() / norm).float()
    width = matrix.shape[0]
    rounding = gamma(width + 2, torch.float32) + width**2 * SMALLEST_NORMAL[torch.float32]
    square = spectral_norm_bound(unit.T @ unit, squarings - 1) + rounding
    return norm * (square**0.5 + 2 * UNIT_ROUNDOFF[torch.float32]) * (1 + 2.0**-40)
