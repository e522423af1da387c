"""Temporary names, and what processes that are gone have left under them."""

from __future__ import annotations

import os
import re
import shutil
from contextlib import suppress
from glob import escape
from pathlib import Path
from secrets import token_hex

from deltalens.storage.held import OPEN_IS_HELD, hold

_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{16}\.tmp")
_LOCK = re.compile(r"\.(.+\.)?lock(\.part-\d+)?")


def temporary_name(path: Path) -> Path:
    """A name beside ``path`` that nobody else has."""
    return path.with_name(f"{_hidden(path)}.{token_hex(8)}.tmp")


def remove_leftovers(path: Path) -> None:
    """Remove what was to become ``path``, or was it once, unless a process still holds it."""
    for left in path.parent.glob(f"{escape(_hidden(path))}.*.tmp"):
        if not _TEMPORARY.fullmatch(left.name):
            continue
        with suppress(OSError):
            _remove_unless_held(left)


def _remove_unless_held(left: Path) -> None:
    if OPEN_IS_HELD:
        left.unlink()  # of directories it cannot be told, and they stay
        return
    directory = left.is_dir()
    descriptor = os.open(left, os.O_RDONLY if directory else os.O_RDWR)
    try:
        if hold(descriptor):
            shutil.rmtree(left) if directory else left.unlink()
    finally:
        os.close(descriptor)


def passing(path: Path) -> bool:
    """Whether it is a lock or a temporary file, by its name."""
    return bool(_TEMPORARY.fullmatch(path.name) or _LOCK.fullmatch(path.name))


def foreign(directory: Path, *own: str) -> bool:
    """Whether ``directory`` holds anything but what is named ``own``, locks and temporaries."""
    return any(not (path.name in own or passing(path)) for path in directory.iterdir())


def _hidden(path: Path) -> str:
    return path.name if path.name.startswith(".") else f".{path.name}"
