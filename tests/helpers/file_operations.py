"""Counts what a process does to files below a directory, and ends it or lets it fail there."""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

_CHANGING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_NAMED = ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate", "os.link")
NEEDS_ROOM = {"open", "write", "os.mkdir", "os.rename", "os.link", "reserve"}


class Operations:
    """Operations on files below ``root``, once :meth:`watch` was called: by their names in order.

    act: called before each with its number, from 0 on, its name, and what writes half of what is to
    be written, if anything is.
    """

    def __init__(
        self, root: Path, act: Callable[[int, str, Callable[[], None] | None], None]
    ) -> None:
        self._root, self._act = str(root), act
        self.names: list[str] = []

    def note(self, name: str, half: Callable[[], None] | None = None) -> None:
        number = len(self.names)
        self.names.append(name)
        self._act(number, name, half)

    def watch(self) -> None:
        """From now on, in this process, for good."""
        sys.addaudithook(self._heard)
        real_open, real_sync, real_reserve = io.open, os.fsync, os.posix_fallocate

        def watched_open(file: Any, mode: str = "r", *rest: Any, **named: Any) -> Any:
            opened = real_open(file, mode, *rest, **named)
            below = self._is_below(file) and not set(mode).isdisjoint("wax+")
            return _Watched(opened, self) if below else opened

        def watched_sync(descriptor: int) -> None:
            self.note("sync")
            real_sync(descriptor)

        def watched_reserve(*given: int) -> None:
            self.note("reserve")
            real_reserve(*given)

        io.open, os.fsync, os.posix_fallocate = watched_open, watched_sync, watched_reserve  # type: ignore[assignment]

    def _heard(self, event: str, args: tuple[Any, ...]) -> None:
        if event == "open" and self._is_below(args[0]) and (args[2] or 0) & _CHANGING:
            self.note("open")
        elif event in _NAMED and (self._is_below(args[0]) or _by_descriptor(event, args)):
            self.note(event)

    def _is_below(self, path: Any) -> bool:
        if not isinstance(path, str | bytes | os.PathLike):
            return False
        return os.fsdecode(path).startswith(self._root)


def _by_descriptor(event: str, args: tuple[Any, ...]) -> bool:
    """Whether a directory's open descriptor says where, as shutil.rmtree has it."""
    return event in ("os.remove", "os.rmdir") and args[-1] != -1


class _Watched:
    """A file whose every write is an operation."""

    def __init__(self, file: Any, operations: Operations) -> None:
        self._file, self._operations = file, operations

    def write(self, content: Any) -> Any:
        def half() -> None:
            size = len(content) if isinstance(content, str) else memoryview(content).nbytes
            part = content if isinstance(content, str) else memoryview(content).cast("B")
            self._file.write(part[: size // 2])
            self._file.flush()

        self._operations.note("write", half)
        return self._file.write(content)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> _Watched:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def kill_at(count: int) -> Callable[[int, str, Callable[[], None] | None], None]:
    """Ends the process before operation ``count``, of a write in the middle."""

    def act(number: int, name: str, half: Callable[[], None] | None) -> None:
        if number == count:
            if half is not None:
                half()
            os.kill(os.getpid(), signal.SIGKILL)

    return act


def full_from(count: int) -> Callable[[int, str, Callable[[], None] | None], None]:
    """No room is left from operation ``count`` on; a write stops in the middle."""

    def act(number: int, name: str, half: Callable[[], None] | None) -> None:
        if number >= count and name in NEEDS_ROOM:
            if half is not None and number == count:
                half()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    return act
