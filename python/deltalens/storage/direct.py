"""Reads of a file that leave the system's cache alone."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path
from typing import IO

from deltalens.errors import InputError
from deltalens.storage.buffers import BLOCK, Buffers, Bytes

_REFUSALS = (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS)
_SLOW = 0.5e9  # bytes/s: a disk so slow that keeping what it gave is worth the work
_TRIED_BYTES = 64 << 20


class DirectFile:
    """An open file, opened once more to be read by the device itself (O_DIRECT).

    That costs hardly any work of the processor, which a scan needs for itself. File systems that
    refuse it are noticed, and so are slow disks, whose files had better stay in memory.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor
        self._refused = False
        self._bytes = 0
        self._fastest = 0.0  # bytes/s; a busy processor makes disks seem slow now and then

    def __del__(self) -> None:
        os.close(self._descriptor)

    @classmethod
    def of(cls, file: IO[bytes], path: Path) -> DirectFile | None:
        """None where there is no such reading."""
        flags = os.O_RDONLY | getattr(os, "O_DIRECT", 0)
        if flags == os.O_RDONLY:
            return None
        try:
            return cls(path, os.open(f"/proc/self/fd/{file.fileno()}", flags))
        except OSError:
            return None

    @property
    def pays(self) -> bool:
        """Whether the file can be read so, and not from a disk that has shown to be slow."""
        slow = self._bytes >= _TRIED_BYTES and self._fastest < _SLOW
        return not (self._refused or slow)

    def read(self, begin: int, end: int, buffers: Buffers) -> Bytes | None:
        """Bytes ``begin … end - 1`` in one of the ``buffers``; None if the file system refuses.

        Raises :class:`InputError` when the file ends before that or cannot be read.
        """
        first = begin // BLOCK * BLOCK
        part = buffers.take(-(-end // BLOCK) * BLOCK - first)
        started = time.perf_counter()
        try:
            got = self._fill(part, first, end - first)
        except OSError as error:
            if error.errno in _REFUSALS:
                self._refused = True
                return None
            raise InputError(
                f"{self._path}: bytes {begin} to {end} cannot be read ({error.strerror}); "
                "copy it to another disk"
            ) from None
        if first + got < end:
            raise InputError(
                f"{self._path}: ends at byte {first + got}, before {end}: it became shorter "
                "while it was read; start again when it is whole"
            )
        self._bytes += got
        self._fastest = max(self._fastest, got / (time.perf_counter() - started))
        return part[begin - first : end - first]

    def _fill(self, part: Bytes, first: int, size: int) -> int:
        """Bytes read into ``part``, at least ``size`` unless the file ends before that."""
        got = 0
        while got < size and got % BLOCK == 0:
            read = os.preadv(self._descriptor, [part[got:].data], first + got)
            if read == 0:
                break
            got += read
        return got
