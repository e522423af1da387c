"""What the kernels take for granted, checked once by the functions that launch them."""

from __future__ import annotations

import torch
from torch import Tensor

OPERAND_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def check_operand(name: str, value: Tensor, ndim: int, like: Tensor | None = None) -> None:
    """``value`` has ``ndim`` axes, contiguous rows, a supported dtype, and fits ``like``.

    ``like`` is another operand of the same product: same dtype, device and last size.
    """
    if value.ndim != ndim:
        raise ValueError(f"{name} must have {ndim} axes, got shape {tuple(value.shape)}")
    if value.dtype not in OPERAND_DTYPES:
        raise ValueError(f"{name} must be float32, bfloat16 or float16, got {value.dtype}")
    if value.shape[-1] > 1 and value.stride(-1) != 1:
        raise ValueError(
            f"{name} must have contiguous rows (last stride 1), got strides {value.stride()}; "
            f"call .contiguous() first"
        )
    if like is None:
        return
    if (value.dtype, value.device) != (like.dtype, like.device):
        raise ValueError(
            f"{name} is {value.dtype} on {value.device} but the decoder rows are {like.dtype} "
            f"on {like.device}"
        )
    if value.shape[-1] != like.shape[-1]:
        raise ValueError(
            f"{name} has d_model {value.shape[-1]} but the decoder rows have {like.shape[-1]}"
        )


def check_vector(name: str, value: Tensor, length: int, like: Tensor) -> None:
    """``value`` is a contiguous float32 [length] on the device of ``like``."""
    if value.shape != (length,) or value.dtype != torch.float32 or not value.is_contiguous():
        raise ValueError(
            f"{name} must be a contiguous float32 [{length}], got {value.dtype} "
            f"{tuple(value.shape)}"
        )
    if value.device != like.device:
        raise ValueError(f"{name} is on {value.device} but the decoder rows are on {like.device}")
