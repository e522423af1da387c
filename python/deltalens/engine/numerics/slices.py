"""Sums of outer products in fp64's accuracy from products of few-bit slices, for devices whose fp64
is slow.

Every column of x and of y is scaled by a power of two and cut, at the same places in all rows, into
slices of BITS bits, and the slices are multiplied where an fp32 sum of their products is exact
(K. Ozaki, T. Ogita, S. Oishi, S. M. Rump, Numerical Algorithms 59, 2012; on tensor cores:
D. Mukunoki, K. Ozaki, T. Ogita, T. Imamura, ISC 2020). Slices are integers of at most 7 bits: TF32
and bfloat16 hold them without rounding.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from deltalens.engine.numerics.precision import UNIT_ROUNDOFF

BITS = 7
LARGEST = 2 ** (BITS - 1)  # magnitude of a slice: a number is cut to the nearest
LONGEST = 2**24 // LARGEST**2  # rows of slices whose products fp32 sums exactly, in any order
_MOST_SLICES = 9  # 63 bits
_EXTREME = 2.0**500  # scales stay within it, so that they have reciprocals


class Sliced(NamedTuple):
    """xᵀ y, fp64 [width, width], and a bound on the spectral norm of what is missing in it, beside
    two fp64 roundings of every number."""

    total: Tensor
    error: float


def sliced_outer(x: Tensor, y: Tensor, allowed: float) -> Sliced | None:
    """xᵀ y for x, y fp64 [n ≤ LONGEST, width], from so many slices that the error is at most
    ``allowed``; None where no number of them is enough, or a number is not finite.

    x and y are scaled in place by powers of two that leave their product the same.
    """
    balance(x, y)
    of_x, of_y = column_scales(x), column_scales(y)
    if not max(float(of_x.max()), float(of_y.max())) < _EXTREME:
        return None
    sizes = x.shape[0] * _norm(of_x) * _norm(of_y)
    for count in range(1, _MOST_SLICES + 1):
        error = missing(count) * sizes
        if error <= allowed:
            total = _sum_of_products(cut(x, of_x, count), cut(y, of_y, count).flip(0))
            return Sliced(total.mul_(of_x[:, None]).mul_(of_y), error)
    return None


def missing(count: int) -> float:
    """Bound on ‖error‖₂ / (n ‖c‖ ‖c′‖) for ``count`` slices of columns of magnitudes c and c′.

    With R_i what i slices leave, |R_i| ≤ 2^(−BITS·i) c, and slice i at most what i − 1 leave:
    xᵀy − Σ_{i+j ≤ count+1} x_iᵀ y_j = R_countᵀ y + Σ_i x_iᵀ R′_{count+1−i}, count + 1 terms of at
    most 2^(−BITS·count) n ‖c‖ ‖c′‖. Products are added in fp64, those of the last slices first:
    what that rounds before the first slices' product comes adds up to less than u/8 of n c c′.
    """
    return (count + 1) * 2.0 ** (-BITS * count) + UNIT_ROUNDOFF[torch.float64] / 8


def balance(x: Tensor, y: Tensor) -> None:
    """Make row t of x and of y [n, width] alike in magnitude, by a power of two and its reciprocal;
    both become 0 where one is."""
    of_x, of_y = (torch.linalg.vector_norm(each, torch.inf, dim=1) for each in (x, y))
    alive = (of_x > 0) & (of_y > 0)
    up = power_of_two(torch.where(alive, of_y.sqrt() / of_x.sqrt(), 1.0))
    x.mul_(torch.where(alive, up, 0.0)[:, None])
    y.mul_(torch.where(alive, 1 / up, 0.0)[:, None])


def column_scales(rows: Tensor) -> Tensor:
    """Powers of two [width] that no magnitude of a column of fp64 [n, width] exceeds."""
    return 2 * power_of_two(torch.linalg.vector_norm(rows, torch.inf, dim=0))


def power_of_two(sizes: Tensor) -> Tensor:
    """The power of two at or below every number of fp64 ``sizes`` ≥ 0, within 2^±500."""
    near = sizes.clamp(1 / _EXTREME, _EXTREME)
    return near / (2 * torch.frexp(near).mantissa)


def cut(rows: Tensor, scales: Tensor, count: int) -> Tensor:
    """Slices [count, n, width] of fp64 rows, the most significant first: the sum of
    2^(1 − BITS·i) slice_i is within 2^(−BITS·count) of rows / scales."""
    slices = torch.empty(count, *rows.shape, dtype=slice_dtype(rows.device), device=rows.device)
    left = rows * (LARGEST / scales)
    whole = torch.empty_like(left)
    for each in slices:
        torch.round(left, out=whole)
        each.copy_(whole)
        left.sub_(whole).mul_(2**BITS)
    return slices


def slice_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where torch sums its products in fp32 and returns those sums, else float32."""
    returned = tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 8)
    return torch.bfloat16 if device.type == "cuda" and returned else torch.float32


def exact_product(left: Tensor, right: Tensor) -> Tensor:
    """leftᵀ right, fp32 [width, width], of at most LONGEST rows of slices."""
    if left.dtype == torch.bfloat16:
        return torch.mm(left.T, right, out_dtype=torch.float32)
    return left.T @ right


def _sum_of_products(left: Tensor, right: Tensor) -> Tensor:
    """Σ over i + j ≤ count + 1 of x_iᵀ y_j, fp64; ``right`` begins with the last slice of y.

    Slices of x before each other and those of y behind each other are one product.
    """
    count, _, width = left.shape
    total = torch.zeros(width, width, dtype=torch.float64, device=left.device)
    for depth in range(count, 0, -1):
        pairs = (left[:depth].flatten(0, 1), right[count - depth :].flatten(0, 1))
        unit = 2.0 ** (2 - BITS * (depth + 1))
        for x, y in zip(*(each.split(LONGEST) for each in pairs), strict=True):
            total.add_(exact_product(x, y), alpha=unit)
    return total


def _norm(scales: Tensor) -> float:
    largest = float(scales.max())
    return largest * float((scales / largest).norm()) * (1 + 2.0**-30)
