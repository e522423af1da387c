"""Files that exist whole or not at all, also when the power fails: written under a temporary name,
synced, then renamed."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING

from deltalens.errors import InputError, Unfinished
from deltalens.storage.held import OPEN_IS_HELD, hold, lies_at, remove_held
from deltalens.storage.leftovers import remove_leftovers, temporary_name

if TYPE_CHECKING:  # a command line that only writes text waits for no torch
    from torch import Tensor

_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def complete_file(path: Path, *, first: bool = False) -> Iterator[Path]:
    """A temporary path in ``path``'s directory that becomes ``path`` when the block succeeds.

    The directory is made if need be, and what processes that are gone have left of ``path`` is
    removed. first: a ``path`` that is there by then stays as it is. Raises
    :class:`~deltalens.errors.Unfinished` when something cannot be written, in the block, too.
    """
    with writing(path):
        make_directory(path.parent)
        remove_leftovers(path)
        with _held(path) as file:
            temporary = Path(file.name)
            yield temporary
            sync(temporary)
            if OPEN_IS_HELD:
                file.close()
            if first:
                with suppress(FileExistsError):
                    os.link(temporary, path)
            else:
                os.replace(temporary, path)
            sync(path.parent)


@contextmanager
def _held(path: Path) -> Iterator[IO[bytes]]:
    """A new temporary file, held as long as it is worked at, so that nobody takes it for one
    that was left."""
    while True:
        temporary = temporary_name(path)
        with temporary.open("xb") as file:
            if not OPEN_IS_HELD and (hold(file) is False or not lies_at(file, temporary)):
                continue  # removed by another process before it was locked
            try:
                yield file
            finally:
                remove_held(file, temporary)
        return


@contextmanager
def complete_directory(path: Path) -> Iterator[Path]:
    """As :func:`complete_file`, of a directory; ``path`` must not be there. What is in it is to be
    written with this module."""
    with writing(path):
        make_directory(path.parent)
        remove_leftovers(path)
        with _held_directory(path) as temporary:
            yield temporary
            os.rename(temporary, path)
            sync(path.parent)


@contextmanager
def _held_directory(path: Path) -> Iterator[Path]:
    while True:
        temporary = temporary_name(path)
        temporary.mkdir()
        with _opened_directory(temporary) as held:
            try:
                if not held:
                    continue
                yield temporary
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
        return


@contextmanager
def _opened_directory(directory: Path) -> Iterator[bool]:
    """Whether it is this process's now; Windows opens none, and leaves them where they are."""
    if OPEN_IS_HELD:
        yield True
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        yield hold(descriptor) is not False and lies_at(descriptor, directory)
    finally:
        os.close(descriptor)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """What the system refuses within is said in one line, with what to do about it."""
    _check_name(path)
    try:
        yield
    except OSError as error:
        room = error.errno in _FULL
        remedy = "make room and run the same command again" if room else "choose another place"
        reason = error.strerror or str(error)
        raise Unfinished(f"cannot write {path}: {reason}; {remedy}") from error


def _check_name(path: Path) -> None:
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise InputError(f"cannot write {str(path)!a}: no UTF-8; choose another name") from error


def make_directory(directory: Path) -> None:
    """Make it, and those above it, if need be."""
    made = [place for place in (directory, *directory.parents) if not place.exists()]
    directory.mkdir(parents=True, exist_ok=True)
    for place in made:
        sync(place.parent)


def remove_directory(directory: Path) -> None:
    """Remove it with all that is in it. Unless the disk is full it first loses its name, so that
    nobody takes for whole what a killed process has left of it."""
    remove_leftovers(directory)
    doomed = temporary_name(directory)
    try:
        os.replace(directory, doomed)
    except OSError:
        doomed = directory
    shutil.rmtree(doomed, ignore_errors=True)


def sync(path: Path) -> None:
    """Wait until a file, or the names in a directory, would survive a power failure."""
    try:
        descriptor = os.open(path, os.O_RDWR if OPEN_IS_HELD else os.O_RDONLY)
    except PermissionError:  # a directory on Windows
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # of file systems that have nothing to sync there
            raise
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """In UTF-8; what has no place there, such as half a character, as JSON would escape it."""
    with complete_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """As safetensors, the largest elements first."""
    from deltalens.storage.tensor_header import Blank, tensor_header

    names = sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))
    blanks = {name: Blank(tuple(tensors[name].shape), tensors[name].dtype) for name in names}
    with complete_file(path) as temporary, temporary.open("wb") as file:
        file.write(tensor_header(blanks, metadata))
        for name in names:
            write_tensor(file, tensors[name])


def write_tensor(file: IO[bytes], tensor: Tensor) -> None:
    """Its elements, row by row."""
    import torch

    flat = tensor.detach().cpu().contiguous().reshape(-1)
    file.write(flat.view(torch.uint8).numpy().data)
