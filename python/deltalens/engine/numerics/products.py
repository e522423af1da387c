"""fp32 matrix products whose chains of roundings are short."""

from __future__ import annotations

from torch import Tensor

BLOCK_D = 256


def blocked_product(rows: Tensor, other: Tensor) -> Tensor:
    """rows @ other with the contracted axis in blocks of BLOCK_D; rows [n, d], other [d, m]."""
    product = rows[:, :BLOCK_D] @ other[:BLOCK_D]
    for start in range(BLOCK_D, rows.shape[1], BLOCK_D):
        product.addmm_(rows[:, start : start + BLOCK_D], other[start : start + BLOCK_D])
    return product


def chain_length(d_model: int) -> int:
    """Roundings an element of :func:`blocked_product` goes through, plus one for its operand."""
    return min(d_model, BLOCK_D) + -(-d_model // BLOCK_D) + 1
