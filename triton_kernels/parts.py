"""A number as a sum of low-precision numbers, for tensor cores that read only those."""

from __future__ import annotations

import torch
from torch import Tensor


def split_parts(value: Tensor, dtype: torch.dtype, parts: int) -> Tensor:
    """``value ≈ result.sum(0)``: [parts, *value.shape] in ``dtype``, contiguous.

    Each part is the rounding of what the previous ones left, so bfloat16 keeps 8 more bits with
    every part and float16 11 (within its exponent range: scale first). ``value`` may be float64;
    no array of its width is made beyond one remainder.
    """
    result = torch.empty(parts, *value.shape, dtype=dtype, device=value.device)
    result[0] = value.to(dtype)
    rest = value
    for part in range(1, parts):
        rest = rest - result[part - 1].to(value.dtype)
        result[part] = rest.to(dtype)
    return result
