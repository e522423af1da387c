"""Locks on open files, which end with the process that holds them, however it ends."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

OPEN_IS_HELD = os.name == "nt"
"""Whether nobody can rename or remove what anybody has open, as on Windows."""

_LOCKED_BYTE = 1 << 30  # beyond the end of what says who holds a lock: there locked bytes hide


def hold(file: IO[Any] | int, *, shared: bool = False) -> bool | None:
    """Lock ``file``, open or its descriptor, until it is closed: whether nobody else holds it.

    None where that cannot be told, since the system or the file system knows no such locks.
    """
    try:
        import fcntl
    except ImportError:  # not on Windows
        return None if shared else _hold_byte(file if isinstance(file, int) else file.fileno())
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        return None
    return True


def _hold_byte(descriptor: int) -> bool:
    import msvcrt

    place = os.lseek(descriptor, 0, os.SEEK_CUR)
    os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
    try:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
    except OSError:
        return False
    finally:
        os.lseek(descriptor, place, os.SEEK_SET)
    return True


def lies_at(file: IO[Any] | int, path: Path) -> bool:
    """Whether ``path`` still names this open file, and not nothing or another one."""
    if OPEN_IS_HELD:
        return True
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    here = os.fstat(file if isinstance(file, int) else file.fileno())
    return (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)


def remove_held(file: IO[Any], path: Path) -> None:
    """Remove what is at ``path``, if anything, and close ``file``, as which it is held."""
    if not OPEN_IS_HELD:
        path.unlink(missing_ok=True)
        file.close()
        return
    file.close()
    with suppress(PermissionError):  # of another process that has opened it since
        path.unlink(missing_ok=True)
