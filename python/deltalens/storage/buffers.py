"""Memory that is handed out, and used again once nothing refers to it."""

from __future__ import annotations

import mmap
import sys
import weakref
from contextlib import suppress
from typing import Any

import numpy as np
import torch

BLOCK = 4096  # bytes; devices ask for 512 or this

Bytes = np.ndarray[Any, np.dtype[np.uint8]]


class Buffers:
    """Parts of about one size, aligned to :data:`BLOCK`, pinned in a process that uses a GPU.

    A part comes back when the last array or tensor over it is gone. So whoever keeps one longer
    costs memory, and never finds other numbers in it.
    """

    def __init__(self) -> None:
        self._free: list[memoryview] = []

    def take(self, size: int) -> Bytes:
        """``size`` bytes that nobody else has; what they hold is left over."""
        memory = self._free.pop() if self._free else _allocated(size)
        if len(memory) < size:
            memory = _allocated(size)
        part: Bytes = np.frombuffer(memory, np.uint8)
        weakref.finalize(part, self._free.append, memory).atexit = False
        return part[:size]


def _allocated(size: int) -> memoryview:
    return _pinned(size) if torch.cuda.is_initialized() else _pages(size)


def _pages(size: int) -> memoryview:
    if sys.platform != "linux":
        return memoryview(mmap.mmap(-1, size))
    pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):  # of systems without huge pages
        pages.madvise(mmap.MADV_HUGEPAGE)
    return memoryview(pages)


def _pinned(size: int) -> memoryview:
    memory = torch.empty(size + BLOCK, dtype=torch.uint8, pin_memory=True)
    start = -memory.data_ptr() % BLOCK
    return memory.numpy()[start : start + size].data
