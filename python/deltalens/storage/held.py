"""Locks on open files, which end with the process that holds them, however it ends."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO, Any


def hold(file: IO[Any] | int, *, shared: bool = False) -> bool | None:
    """Lock ``file``, open or its descriptor, until it is closed: whether nobody else holds it.

    None where that cannot be told, since the system or the file system knows no locks.
    """
    try:
        import fcntl
    except ImportError:  # not on Windows
        return None
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        return None
    return True


def lies_at(file: IO[Any] | int, path: Path) -> bool:
    """Whether ``path`` still names this open file, and not nothing or another one."""
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    here = os.fstat(file if isinstance(file, int) else file.fileno())
    return (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)
