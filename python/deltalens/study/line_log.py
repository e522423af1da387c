"""JSON Lines that are appended to and never rewritten, and survive being cut anywhere."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

from deltalens.study.jsonl import Row


def append_rows(path: Path, rows: Iterable[Row]) -> None:
    """Add lines; they are on disk when this returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    with path.open("a", encoding="utf-8", newline="\n") as stream:
        stream.write("".join(lines))
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
