"""Rows of a matrix that its file stores the other way round."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any
from zlib import crc32

import numpy as np
import torch
from torch import Tensor

from deltalens.engine.decoder import Reader
from deltalens.errors import InputError, Unfinished
from deltalens.sae.files.safetensors_file import open_safetensors
from deltalens.sae.fingerprint import fingerprint
from deltalens.sae.stored import StoredTensor, TensorFile
from deltalens.storage.atomic import complete_file
from deltalens.storage.cache import cache_directory
from deltalens.storage.leftovers import remove_leftovers
from deltalens.storage.tensor_header import Blank, tensor_header

IN_MEMORY_BYTES = 256 << 20
CHUNK_BYTES = 128 << 20
SUFFIX = ".rows.safetensors"
ROWS = "rows"
CHECKSUM = "checksum"
CHECKED = "DELTALENS_CHECK_COPIES"

_sound: set[tuple[Path, int, int, int]] = set()  # files that were checked, by place and state


class TransposedTensor:
    """Rows of ``file``'s matrix ``name``.T, adjacent, so that they are read as those of any file.

    A matrix of up to 256 MiB is transposed in memory. Of a larger one a transposed copy is written
    when rows are first read, 128 MiB at a time: beside the file, or where that directory cannot be
    written to, under ``$XDG_CACHE_HOME/deltalens`` (``~/.cache/deltalens``). The copy's name holds
    a hash of the file's fingerprint, size and time of change, so a changed file gets a new one. It
    ends with a checksum, and one that is damaged is made again.
    """

    def __init__(self, file: TensorFile, name: str) -> None:
        self._file = file
        self._name = name
        self._stored = file.get(name)
        self._lock = Lock()

    @property
    def shape(self) -> tuple[int, ...]:
        return self._stored.shape[::-1]

    @property
    def dtype(self) -> torch.dtype:
        return self._stored.dtype

    def rows(self, start: int, stop: int) -> Tensor:
        return self._rows().rows(start, stop)

    def reader(self) -> Reader:
        return self._rows().reader()

    def prefetch(self, start: int, stop: int) -> None:
        self._rows().prefetch(start, stop)

    def release(self, start: int, stop: int) -> None:
        self._rows().release(start, stop)

    def _rows(self) -> StoredTensor:
        with self._lock:
            return self._by_row

    @cached_property
    def _by_row(self) -> StoredTensor:
        if self._stored.array.nbytes <= IN_MEMORY_BYTES:
            whole = _transposed(self._stored.array)
            return StoredTensor(whole, self.dtype)
        name = f".{self._file.path.name}.{self._name}.{self._key()}{SUFFIX}"
        places = (self._file.path.parent, cache_directory())
        for place in places:
            remove_leftovers(place / name)
        found = (self._read(place / name) for place in places)
        return next((copy for copy in found if copy is not None), None) or self._write(name)

    def _key(self) -> str:
        path = self._file.path
        state = path.stat()
        said = [fingerprint(path), state.st_size, state.st_mtime_ns, self.shape, str(self.dtype)]
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:16]

    def _read(self, path: Path) -> StoredTensor | None:
        """The copy at ``path``; None if there is none, or none that is whole."""
        if not path.is_file():
            return None
        try:
            file = open_safetensors(path)
            copy, (checksum,) = file.get(ROWS), file.get(CHECKSUM).read().tolist()
        except (InputError, TypeError, ValueError):  # earlier versions wrote no checksum
            return None
        if (copy.shape, copy.dtype) != (self.shape, self.dtype):
            return None
        if not _is_sound(path, copy, checksum):
            warnings.warn(f"{path} is damaged and is made again", stacklevel=2)
            return None
        return copy

    def _write(self, name: str) -> StoredTensor:
        reasons = []
        for directory in (self._file.path.parent, cache_directory()):
            try:
                _write_transposed(directory / name, self._stored)
            except Unfinished as error:
                reasons.append(str(error))
                continue
            return open_safetensors(directory / name).get(ROWS)
        size = self._stored.array.nbytes / 1e9
        raise Unfinished(
            f"{self._file.path}: {self._name} is stored by column, and its copy by row "
            f"({size:.1f} GB) could not be written ({'; '.join(reasons)}); "
            "free space there or set XDG_CACHE_HOME"
        )


def _write_transposed(path: Path, stored: StoredTensor) -> None:
    """``stored``.T as a safetensors file that appears complete or not at all."""
    height, width = stored.shape
    blanks = {ROWS: Blank((width, height), stored.dtype), CHECKSUM: Blank((1,), torch.int64)}
    with complete_file(path) as temporary, temporary.open("wb") as file:
        file.write(tensor_header(blanks))
        checksum = 0
        for rows in _chunks(stored):
            checksum = crc32(rows.data, checksum)
            file.write(rows.data)
        file.write(checksum.to_bytes(8, "little"))


def _is_sound(path: Path, rows: StoredTensor, checksum: int) -> bool:
    """Whether the rows are those that were written; read once in a process, as ``DELTALENS_CHECK_
    COPIES=0`` in the environment can spare it."""
    state = path.stat()
    key = path.resolve(), state.st_ino, state.st_size, state.st_mtime_ns
    if key not in _sound and os.environ.get(CHECKED) != "0":
        if _checksum(rows) != checksum:
            return False
        _sound.add(key)
    return True


def _checksum(stored: StoredTensor) -> int:
    found, latents = 0, stored.shape[0]
    step = max(1, CHUNK_BYTES * latents // stored.array.nbytes)
    for start in range(0, latents, step):
        stored.prefetch(start, min(start + step, latents))
        found = crc32(stored.array[start : start + step].data, found)
        stored.release(start, min(start + step, latents))
    return found


def _chunks(stored: StoredTensor) -> Iterator[np.ndarray[Any, Any]]:
    height, width = stored.shape
    step = max(1, CHUNK_BYTES // (height * stored.array.itemsize))
    for left in range(0, width, step):
        yield _transposed(stored.array[:, left : left + step])
        if stored.pages is not None:
            stored.pages.release(0, stored.array.nbytes)


def _transposed(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """A row-major copy of ``array``.T."""
    return torch.from_numpy(np.require(array, requirements=("C", "W"))).T.contiguous().numpy()
