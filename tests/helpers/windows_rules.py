"""Windows as far as Linux can play it: what deltalens's own modules find in ``os``, ``mmap`` and
``sys`` is what is there on Windows, and the process cannot do to files what Windows forbids.

``obey(root)`` is called before deltalens is imported. Below ``root`` nobody renames, removes or
empties what is open or mapped, opens a directory, syncs what is open for reading only, or gives a
file a name with one of Windows's own characters. Files that deltalens opens as text say their
encoding, which is not UTF-8 there. Locks are of single bytes and of the descriptor that took them.
"""

from __future__ import annotations

import builtins
import errno
import fcntl
import os
import re
import struct
import sys
import warnings
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

_MISSING = {
    "os": re.compile(r"O_(DIRECT|DIRECTORY|CLOEXEC|NOFOLLOW)|posix_.*|p(read|write)v?|fork|uname"
                     r"|get[eug]*id|sysconf|sched_.*|statvfs|mkfifo|killpg|wait.*|fdatasync|sync"),
    "mmap": re.compile(r"(MAP|MADV|PROT)_.*"),
}  # fmt: skip
_POSIX_ONLY = {"fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "posix", "syslog"}
_FORBIDDEN = set('<>:"|?*\\')


def obey(root: Path) -> None:
    """From now on, in this process, for good."""
    real_import = builtins.__import__
    there = {name: _view(name) for name in ("os", "mmap", "sys")}
    there["msvcrt"] = _msvcrt()

    def imported(name: str, globals: Any = None, *rest: Any, **named: Any) -> Any:
        if str((globals or {}).get("__name__", "")).split(".")[0] == "deltalens":
            if name in _POSIX_ONLY:
                raise ImportError(f"no module {name} on Windows")
            if name in there:
                return there[name]
        return real_import(name, globals, *rest, **named)

    builtins.__import__ = imported
    sys.addaudithook(_Rules(root).heard)
    warnings.filterwarnings("error", category=EncodingWarning, module=r"deltalens(\.|$)")


class _Rules:
    """What happens to files below a folder, heard before it does."""

    def __init__(self, root: Path) -> None:
        self._root = str(root)

    def heard(self, event: str, args: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = args
            if self._below(path):
                self._named_well(path)
                if (flags or 0) & os.O_TRUNC:
                    self._free(path, mapped_only=True)
        elif event in ("os.rename", "os.link"):
            for path in args[:2]:
                if self._below(path):
                    self._named_well(path)
                    self._free(path)
        elif event in ("os.remove", "os.rmdir", "os.mkdir"):
            path = _resolved(args[0], args[-1])
            if self._below(path):
                self._named_well(path)
                if event == "os.remove":
                    self._free(path)

    def _below(self, path: Any) -> bool:
        return isinstance(path, str | os.PathLike) and os.fspath(path).startswith(self._root)

    def _named_well(self, path: Any) -> None:
        if _FORBIDDEN & set(os.fspath(path)[len(self._root) :]):
            raise OSError(errno.EINVAL, "a name that Windows refuses", str(path))

    def _free(self, path: Any, *, mapped_only: bool = False) -> None:
        held = _mapped() if mapped_only else _mapped() | _open()
        place = os.fspath(path)
        if any(one == place or one.startswith(place + os.sep) for one in held):
            raise PermissionError(errno.EACCES, "another process uses the file", place)


def _resolved(path: Any, directory: Any) -> Any:
    if isinstance(directory, int) and directory >= 0 and isinstance(path, str):
        return os.path.join(os.readlink(f"/proc/self/fd/{directory}"), path)
    return path


def _open() -> set[str]:
    """What this process has open, or one that was started with it; of directories nothing."""
    with_it = [
        pid for pid in os.listdir("/proc") if pid.isdigit() and _group(int(pid)) == os.getpgrp()
    ]
    found = set()
    for pid in with_it:
        with suppress(OSError):  # gone meanwhile
            for link in Path(f"/proc/{pid}/fd").iterdir():
                with suppress(OSError):
                    found.add("" if link.is_dir() else os.readlink(link))
    return found - {""}


def _group(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except OSError:
        return None


def _mapped() -> set[str]:
    with open("/proc/self/maps", encoding="utf-8") as file:
        return {line.split(maxsplit=5)[-1].rstrip("\n") for line in file if "/" in line}


def _view(name: str) -> ModuleType:
    """The module as Windows has it."""
    real = __import__(name)
    seen = ModuleType(name)
    missing = _MISSING.get(name)
    given = {
        key: value for key, value in vars(real).items() if not (missing and missing.fullmatch(key))
    }
    vars(seen).update(given)
    if name == "sys":
        seen.__getattr__ = lambda key: getattr(real, key)  # type: ignore[method-assign]
        seen.platform = "win32"  # type: ignore[attr-defined]
    if name == "os":
        seen.name, seen.open, seen.fsync = "nt", _open_file, _sync  # type: ignore[attr-defined]
    return seen


def _open_file(path: Any, flags: int, *rest: Any, **named: Any) -> int:
    if os.path.isdir(path):
        raise PermissionError(errno.EACCES, "a directory", str(path))
    return os.open(path, flags, *rest, **named)


def _sync(descriptor: int) -> None:
    if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
        raise OSError(errno.EBADF, "open for reading only")
    os.fsync(descriptor)


def _msvcrt() -> ModuleType:
    """``msvcrt.locking`` as it is documented, by Linux's locks of an open file's bytes."""
    module = ModuleType("msvcrt")

    def locking(descriptor: int, mode: int, count: int) -> None:
        lock = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_CUR, 0, count, 0)
        try:
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, lock)
        except (BlockingIOError, PermissionError):
            raise PermissionError(errno.EACCES, "locked") from None

    module.LK_NBLCK, module.locking = 2, locking  # type: ignore[attr-defined]
    return module
