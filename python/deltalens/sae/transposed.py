"""Rows of a matrix that its file stores the other way round."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from deltalens.engine.decoder import Reader
from deltalens.errors import InputError
from deltalens.sae.files.safetensors_file import DTYPES, open_safetensors
from deltalens.sae.fingerprint import fingerprint
from deltalens.sae.stored import StoredTensor, TensorFile
from deltalens.storage.cache import cache_directory

IN_MEMORY_BYTES = 256 << 20
CHUNK_BYTES = 128 << 20
SUFFIX = ".rows.safetensors"
ROWS = "rows"


class TransposedTensor:
    """Rows of ``file``'s matrix ``name``.T, adjacent, so that they are read as those of any file.

    A matrix of up to 256 MiB is transposed in memory. Of a larger one a transposed copy is written
    when rows are first read, 128 MiB at a time: beside the file, or where that directory cannot be
    written to, under ``$XDG_CACHE_HOME/deltalens`` (``~/.cache/deltalens``). The copy's name holds
    a hash of the file's fingerprint, size and time of change, so a changed file gets a new one.
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
            copy = open_safetensors(path).get(ROWS)
        except InputError:
            return None
        return copy if (copy.shape, copy.dtype) == (self.shape, self.dtype) else None

    def _write(self, name: str) -> StoredTensor:
        reasons = []
        for directory in (self._file.path.parent, cache_directory()):
            try:
                directory.mkdir(parents=True, exist_ok=True)
                _write_transposed(directory / name, self._stored)
            except OSError as error:
                reasons.append(f"{directory}: {error.strerror}")
                continue
            return open_safetensors(directory / name).get(ROWS)
        size = self._stored.array.nbytes / 1e9
        raise InputError(
            f"{self._file.path}: {self._name} is stored by column, and its copy by row "
            f"({size:.1f} GB) could not be written ({'; '.join(reasons)}); "
            "free space there or set XDG_CACHE_HOME"
        )


def _write_transposed(path: Path, stored: StoredTensor) -> None:
    """``stored``.T as a safetensors file that appears complete or not at all."""
    descriptor, unfinished = tempfile.mkstemp(prefix=f"{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            _write_header(file, stored)
            for rows in _chunks(stored):
                file.write(rows.data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(unfinished, 0o644)
        os.replace(unfinished, path)
    except BaseException:
        os.unlink(unfinished)
        raise


def _write_header(file: IO[bytes], stored: StoredTensor) -> None:
    dtype = next(name for name, (_, kind) in DTYPES.items() if kind == stored.dtype)
    entry = {
        "dtype": dtype,
        "shape": stored.shape[::-1],
        "data_offsets": [0, stored.array.nbytes],
    }
    header = json.dumps({ROWS: entry}).encode()
    header += b" " * (-len(header) % 8)
    file.write(len(header).to_bytes(8, "little") + header)


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
