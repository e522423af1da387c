"""fp64 truths for the kernels, and where to run them."""

from __future__ import annotations

import os

import torch
from torch import Tensor

ON_GPU = os.environ.get("TRITON_INTERPRET") == "0"
DEVICE = "cuda" if ON_GPU else "cpu"
# The interpreter cannot multiply bfloat16.
DTYPES = [torch.float32, torch.float16, *([torch.bfloat16] if ON_GPU else [])]
# Rows to cut off the front when asking whether a score depends on its place: the interpreter's
# matrix product may, within a tile.
SHIFT = 37 if ON_GPU else 64
# One number; less and more than whole tiles in every size; several tiles.
SHAPES = [(1, 1, 1), (3, 5, 7), (33, 17, 31), (64, 32, 65), (40, 50, 33)]


def normal(*shape: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Standard normal numbers on the device."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(DEVICE, dtype)


def reduced(products: Tensor, reduction: str) -> Tensor:
    """[n] of products [n, tokens]."""
    if reduction == "max":
        return products.amax(1)
    return {"sum": products, "abs": products.abs(), "positive": products.clamp(min=0)}[
        reduction
    ].sum(1)


def unread(rows: Tensor, stride: int) -> Tensor:
    """The rows at a distance of ``stride`` elements, with memory between that is never touched."""
    count, width = rows.shape
    spread = torch.empty((count - 1) * stride + width, dtype=rows.dtype, device=rows.device)
    spread = spread.as_strided((count, width), (stride, 1))
    spread.copy_(rows)
    return spread
