"""Files as memory."""

from __future__ import annotations

import math
import mmap
import sys
from pathlib import Path
from typing import Any, Literal

import numpy as np

from deltalens.errors import InputError

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


def mapped_array(
    memory: mmap.mmap,
    *,
    offset: int,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    order: Literal["C", "F"] = "C",
) -> np.ndarray[Any, Any]:
    """The array at ``offset``, without reading it. Raises :class:`InputError` beyond the end."""
    end = offset + math.prod(shape) * dtype.itemsize
    if offset < 0 or min(shape, default=0) < 0 or end > len(memory):
        raise InputError(f"truncated: an array ends at byte {end}, the file at {len(memory)}")
    return np.ndarray(shape, dtype, buffer=memory, offset=offset, order=order)
