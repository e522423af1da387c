"""What Linux says of a mapped file and may be told, other threads going on meanwhile.

Python's own ``mmap.madvise`` keeps all of them waiting while the system looks for free pages.
"""

from __future__ import annotations

import ctypes
import mmap
import sys

import numpy as np


def resident_share(memory: mmap.mmap, begin: int, end: int) -> float:
    """The share of bytes ``begin … end - 1`` that needs no disk; 1 where nobody can say.

    Linux does not tell it of files of others that one may not write to.
    """
    if sys.platform != "linux":
        return 1.0
    begin = begin // mmap.PAGESIZE * mmap.PAGESIZE
    held = np.zeros(-(-(end - begin) // mmap.PAGESIZE), np.uint8)
    pages = ctypes.c_void_p(held.ctypes.data)
    if ctypes.CDLL(None).mincore(*_span(memory, begin, end), pages):
        return 1.0
    return float((held & 1).mean())


def fetch(memory: mmap.mmap, begin: int, end: int) -> None:
    """Have bytes ``begin … end - 1`` read from disk, without waiting for them; ``begin`` is that of
    a page. Linux only."""
    ctypes.CDLL(None).madvise(*_span(memory, begin, end), ctypes.c_int(mmap.MADV_WILLNEED))


def _span(memory: mmap.mmap, begin: int, end: int) -> tuple[ctypes.c_void_p, ctypes.c_size_t]:
    start = np.frombuffer(memory, np.uint8).ctypes.data
    return ctypes.c_void_p(start + begin), ctypes.c_size_t(end - begin)
