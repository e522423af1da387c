"""Sums of positive float32 that are exact, so that no order of adding them up is another."""

from __future__ import annotations

import numpy as np

GROUPS = 32
"""Of eight powers of two each: a sum is a whole number for each group, below 2^63 as long as fewer
than 2^32 values are added."""

_BIAS = 150  # a float32 is its mantissa, a whole number below 2^24, times 2^(exponent - 150)


def grouped_sums(rows: np.ndarray, values: np.ndarray, n: int) -> np.ndarray:
    """int64 [n, GROUPS]: of float32 ``values`` above 0, the sum of those of each of ``rows``, int64
    [len(values)] below n. At most 2^22 values at once; the results add up."""
    bits = values.view(np.int32)
    exponent = np.maximum(bits >> 23, 1)
    mantissa = (bits & 0x7FFFFF) | ((bits >> 23 > 0).astype(np.int32) << 23)
    shifted = mantissa.astype(np.float64) * (1 << (exponent & 7))  # below 2^31
    cell = rows * GROUPS + (exponent >> 3)
    sums = np.bincount(cell, weights=shifted, minlength=n * GROUPS)  # exact below 2^53
    return sums.astype(np.int64).reshape(n, GROUPS)


def total(sums: np.ndarray) -> float:
    """The float64 that is nearest to a row [GROUPS] of :func:`grouped_sums`."""
    whole = sum(int(part) << (8 * group) for group, part in enumerate(sums))
    return whole / (1 << _BIAS)
