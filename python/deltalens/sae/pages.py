"""The pages of a mapped file: which to read how, and when to drop them."""

from __future__ import annotations

import mmap
import sys
from dataclasses import dataclass

from deltalens.storage.buffers import Buffers, Bytes
from deltalens.storage.direct import DirectFile
from deltalens.storage.mapping import fetch, resident_share

# The system shortens longer requests to its readahead, which is 128 kB unless set otherwise.
_READ_BYTES = 128 << 10
# A fault may map the pages around it, at most as many as a huge page has.
_MAPPED_BYTES = 2 << 20
_WARM = 0.5  # the share of a range in memory above which the rest had better be there, too


class MappedFile(mmap.mmap):
    """A file as memory, with the way to read it past the system's cache, if there is one."""

    direct: DirectFile | None = None


@dataclass(frozen=True)
class FilePages:
    """The pages of an array of ``size`` bytes at ``offset`` in the private mapping of a file.

    Dropping pages that nobody wrote to is harmless there: they come back from the system's cache or
    the file. Does nothing but on Linux, as other systems take the same advice differently.
    """

    memory: MappedFile
    offset: int
    size: int

    def read(self, begin: int, end: int, buffers: Buffers) -> Bytes | None:
        """Bytes ``begin … end - 1`` of the array, read past the system's cache unless they are in
        it; None where they had better be taken from the mapping, and are fetched meanwhile."""
        first, last = self.offset + begin, self.offset + end
        part, file = None, self.memory.direct
        if file is not None and file.pays and resident_share(self.memory, first, last) <= _WARM:
            part = file.read(first, last, buffers)
        if part is None:
            self.prefetch(begin, end)
        return part

    def prefetch(self, begin: int, end: int) -> None:
        """Have bytes ``begin … end - 1`` of the array read from disk, without waiting for them."""
        if sys.platform != "linux" or begin == end:
            return
        first = _rounded_down(self.offset + begin, mmap.PAGESIZE)
        last = self.offset + end
        for start in range(first, last, _READ_BYTES):
            fetch(self.memory, start, min(start + _READ_BYTES, last))

    def release(self, begin: int, end: int) -> None:
        """Unmap these bytes and what of the array lies on the same huge pages.

        The pages at the array's ends stay: they may belong to another array, too.
        """
        if sys.platform != "linux" or begin == end:
            return
        first = _rounded_down(self.offset + begin, _MAPPED_BYTES)
        last = _rounded_up(self.offset + end, _MAPPED_BYTES)
        first = max(first, _rounded_up(self.offset, mmap.PAGESIZE))
        last = min(last, _rounded_down(self.offset + self.size, mmap.PAGESIZE))
        if first < last:
            self.memory.madvise(mmap.MADV_DONTNEED, first, last - first)


def _rounded_down(offset: int, unit: int) -> int:
    return offset // unit * unit


def _rounded_up(offset: int, unit: int) -> int:
    return -(-offset // unit) * unit
