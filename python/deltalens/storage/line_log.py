"""JSON Lines that are appended to and never rewritten, and survive being cut anywhere."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Generic, TypeVar

from deltalens.storage.atomic import make_directory, sync, writing
from deltalens.storage.jsonl import Row

T = TypeVar("T")

_BATCH, _SECONDS = 512, 1.0  # lines written at once, and how long the first of them waits
_LOOKED_AT = 1 << 16  # bytes


def append_rows(path: Path, rows: Iterable[Row]) -> None:
    """Add lines; they are on disk when this returns."""
    append_lines(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def append_lines(path: Path, lines: str) -> None:
    """Add whole lines of text, in place of one that was cut; they are on disk when this returns.

    None of them stays where not all can be written; :class:`~deltalens.errors.Unfinished` is
    raised then.
    """
    with writing(path):
        make_directory(path.parent)
        new = not path.exists()
        with path.open("a+b", buffering=0) as file:
            _append(file, lines.encode(errors="backslashreplace"))
        if new:
            sync(path.parent)


def _append(file: IO[bytes], content: bytes) -> None:
    whole = _last_end(file)
    file.truncate(whole)
    try:
        left = memoryview(content)
        while left:
            left = left[file.write(left) :]
        os.fsync(file.fileno())
    except OSError:
        file.truncate(whole)
        raise


def drop_cut_line(path: Path) -> None:
    """Remove what a process that was killed while it wrote has left of its last line."""
    if not path.exists():
        return
    with writing(path), path.open("r+b") as file:
        file.truncate(_last_end(file))


def _last_end(file: IO[bytes]) -> int:
    """Where the last whole line ends, looked for from the end of the file."""
    size = file.seek(0, os.SEEK_END)
    while size:
        start = max(0, size - _LOOKED_AT)
        file.seek(start)
        found = file.read(size - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        size = start
    return 0


class Batched(Generic[T]):
    """Hands items on to ``write`` in batches: at the latest a second after the first came, or
    when the block ends, however it ends."""

    def __init__(self, write: Callable[[list[T]], None]) -> None:
        self._write = write
        self._waiting: list[T] = []
        self._since = 0.0

    def add(self, item: T) -> None:
        """Take one more item."""
        if not self._waiting:
            self._since = time.monotonic()
        self._waiting.append(item)
        if len(self._waiting) >= _BATCH or time.monotonic() - self._since > _SECONDS:
            self._flush()

    def _flush(self) -> None:
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            self._write(waiting)

    def __enter__(self) -> Batched[T]:
        return self

    def __exit__(self, *_: object) -> None:
        self._flush()
