"""Files as memory."""

from __future__ import annotations

import math
import mmap
import sys
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from deltalens.errors import InputError, quoted
from deltalens.sae.pages import FilePages, MappedFile
from deltalens.sae.stored import StoredTensor
from deltalens.storage.direct import DirectFile

# Linux reserves no memory for the mapping's copy-on-write pages under this flag, so a file may be
# larger than memory. Python names it from 3.13 on.
MAP_NORESERVE = 0x4000
LONGEST_SIDE = 1 << 48
MOST_DIMENSIONS = 8


def map_file(path: Path) -> MappedFile:
    """``path`` as memory that is private to this process: writing to it never changes the file."""
    with path.open("rb") as file:
        if path.stat().st_size == 0:
            raise InputError(f"{path} is empty")
        if sys.platform == "linux":
            memory = MappedFile(file.fileno(), 0, flags=mmap.MAP_PRIVATE | MAP_NORESERVE)
        else:
            memory = MappedFile(file.fileno(), 0, access=mmap.ACCESS_COPY)
        memory.direct = DirectFile.of(file, path)
        return memory


def mapped_tensor(
    memory: MappedFile,
    *,
    offset: int,
    shape: tuple[int, ...],
    bits: np.dtype[Any],
    dtype: torch.dtype,
    order: Literal["C", "F"] = "C",
) -> StoredTensor:
    """The tensor at ``offset``, without reading it; ``bits`` is what NumPy takes its numbers for.

    Raises :class:`InputError` beyond the end of the file, and for what is no shape.
    """
    if not all(type(length) is int and 0 <= length <= LONGEST_SIDE for length in (offset, *shape)):
        raise InputError(f"damaged: {quoted(shape)} is no shape")
    if len(shape) > MOST_DIMENSIONS:
        raise InputError(f"damaged: an array of {len(shape)} dimensions")
    size = math.prod(shape) * bits.itemsize
    if offset + size > len(memory):
        raise InputError(
            f"truncated: an array ends at byte {quoted(offset + size)}, the file at {len(memory)}"
        )
    array: np.ndarray[Any, Any] = np.ndarray(shape, bits, buffer=memory, offset=offset, order=order)
    return StoredTensor(array, dtype, FilePages(memory, offset, size))


def strided_tensor(
    memory: MappedFile,
    *,
    what: str,
    span: tuple[int, int],
    first: int,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    bits: np.dtype[Any],
    dtype: torch.dtype,
) -> StoredTensor:
    """A tensor of ``shape`` in the ``span`` (start, bytes) of ``memory``, without reading it.

    Its number 0 is number ``first`` of the span, and ``strides`` count numbers, too. Raises
    :class:`InputError`, calling it ``what``, beyond the span and where it is larger than that.
    """
    start, size = span
    empty = 0 in shape
    last = first + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    numbers = math.prod(shape)
    if len(shape) > MOST_DIMENSIONS or (not empty and (last + 1) * bits.itemsize > size):
        raise InputError(f"damaged: {what} lies beyond the numbers stored for it")
    if numbers * bits.itemsize > size:
        raise InputError(f"{what} repeats the numbers stored for it; save a contiguous copy")
    offset = start + (0 if empty else first * bits.itemsize)
    steps = tuple(step * bits.itemsize for step in strides)
    array: np.ndarray[Any, Any] = np.ndarray(
        shape, bits, buffer=memory, offset=offset, strides=None if empty else steps
    )
    return StoredTensor(array, dtype, FilePages(memory, offset, array.nbytes))
