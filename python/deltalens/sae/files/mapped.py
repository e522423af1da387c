"""Files as memory."""

from __future__ import annotations

import math
import mmap
import sys
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from deltalens.errors import InputError
from deltalens.sae.pages import FilePages
from deltalens.sae.stored import StoredTensor

# Linux reserves no memory for the mapping's copy-on-write pages under this flag, so a file may be
# larger than memory. Python names it from 3.13 on.
MAP_NORESERVE = 0x4000


def map_file(path: Path) -> mmap.mmap:
    """``path`` as memory that is private to this process: writing to it never changes the file."""
    with path.open("rb") as file:
        if path.stat().st_size == 0:
            raise InputError(f"{path} is empty")
        if sys.platform == "linux":
            return mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE | MAP_NORESERVE)
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)


def mapped_tensor(
    memory: mmap.mmap,
    *,
    offset: int,
    shape: tuple[int, ...],
    bits: np.dtype[Any],
    dtype: torch.dtype,
    order: Literal["C", "F"] = "C",
) -> StoredTensor:
    """The tensor at ``offset``, without reading it; ``bits`` is what NumPy takes its numbers for.

    Raises :class:`InputError` beyond the end of the file.
    """
    size = math.prod(shape) * bits.itemsize
    if offset < 0 or min(shape, default=0) < 0 or offset + size > len(memory):
        raise InputError(
            f"truncated: an array ends at byte {offset + size}, the file at {len(memory)}"
        )
    array: np.ndarray[Any, Any] = np.ndarray(shape, bits, buffer=memory, offset=offset, order=order)
    return StoredTensor(array, dtype, FilePages(memory, offset, size))
