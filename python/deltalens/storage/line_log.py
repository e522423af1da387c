"""JSON Lines that are appended to and never rewritten, and survive being cut anywhere."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Generic, TypeVar

from deltalens.storage.jsonl import Row

T = TypeVar("T")

_BATCH, _SECONDS = 512, 1.0  # lines written at once, and how long the first of them waits


def append_rows(path: Path, rows: Iterable[Row]) -> None:
    """Add lines; they are on disk when this returns."""
    append_lines(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def append_lines(path: Path, lines: str) -> None:
    """Add whole lines of text; they are on disk when this returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8", newline="\n") as stream:
        stream.write(lines)
        stream.flush()
        os.fsync(stream.fileno())


def drop_cut_line(path: Path) -> None:
    """Remove what a process that was killed while it wrote has left of its last line."""
    if not path.exists():
        return
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(path, whole)


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
