"""One process at a time that writes to a place; a lock ends with its process, however it ends."""

from __future__ import annotations

import json
import os
import platform
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

from deltalens.errors import InputError
from deltalens.storage.atomic import make_directory, writing
from deltalens.storage.held import OPEN_IS_HELD, hold, lies_at, remove_held
from deltalens.storage.parts import part_path, parts_of


def lock_in(directory: Path) -> Path:
    """The lock of all that is written into ``directory``."""
    return directory / ".lock"


def lock_beside(path: Path) -> Path:
    """The lock of the file ``path`` and those beside it that go with it."""
    return path.with_name(f".{path.name}.lock")


@contextmanager
def locked(lock: Path, part: int | None = None) -> Iterator[None]:
    """Nobody else holds ``lock`` meanwhile, but for a ``part`` those of other parts.

    Raises :class:`InputError` naming the process that does. The lock's file is gone afterwards, and
    so is its directory where it was made for it and nothing else is there.
    """
    if lock.parent.is_file():
        raise InputError(f"{lock.parent} is a file; choose another directory")
    made = [place for place in lock.parents if not place.exists()]
    try:
        with ExitStack() as stack:
            stack.enter_context(_holding(lock, lock, shared=part is not None))
            if part is not None:
                stack.enter_context(_holding(part_path(lock, part), lock, shared=False))
            yield
    finally:
        with suppress(OSError):
            for place in made:
                place.rmdir()


@contextmanager
def _holding(path: Path, lock: Path, *, shared: bool) -> Iterator[None]:
    file = _taken(path, lock, shared)
    try:
        yield
    finally:
        if OPEN_IS_HELD or not shared or hold(file):  # nobody else shares it
            remove_held(file, path)
        file.close()


def _taken(path: Path, lock: Path, shared: bool) -> IO[str]:
    while True:
        with writing(path):
            make_directory(path.parent)
            file = path.open("a+", encoding="utf-8")
        held = hold(file, shared=shared)
        if held is False:
            file.close()
            raise InputError(_occupied(path, lock))
        if held is None:
            _warn(path)
        if lies_at(file, path):
            break
        file.close()  # another process removed it before it was locked
    if not shared:
        _sign(file)
    return file


def _sign(file: IO[str]) -> None:
    said = {"process": os.getpid(), "host": platform.node(), "command": sys.argv}
    with suppress(OSError):  # of a full disk; the lock holds all the same
        file.truncate(0)
        file.write(json.dumps(said))
        file.flush()


def _occupied(path: Path, lock: Path) -> str:
    signed = (_signature(one) for one in dict.fromkeys((path, lock, *parts_of(lock))))
    who = next((text for text in signed if text is not None), "another process")
    place = lock.parent if lock.name == ".lock" else lock.with_name(lock.name[1 : -len(".lock")])
    return f"{who} is writing to {place}; wait for it to end, or choose another place"


def _signature(path: Path) -> str | None:
    """Who holds the lock at ``path``, None where that does not say."""
    try:
        with path.open("r+", encoding="utf-8") as file:
            if hold(file):
                return None  # left by a process that is gone
            said = json.load(file)
        command = " ".join(map(str, said["command"][1:3]))
        return f"process {said['process']} on {said['host']} (deltalens {command})"
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _warn(path: Path) -> None:
    warnings.warn(
        f"{path.parent} knows no locks; make sure that no other process writes there",
        stacklevel=2,
    )
