"""Tensors of a checkpoint that stay on disk until a slice of them is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from deltalens.engine.decoder import Reader
from deltalens.errors import InputError, quoted
from deltalens.sae.pages import FilePages
from deltalens.storage.buffers import Buffers

CACHE_LINE_BYTES = 64
LISTED = 8


@dataclass(frozen=True)
class StoredTensor:
    """An array mapped from its file; bfloat16, which NumPy lacks, is held as its bits in int16."""

    array: np.ndarray[Any, Any]
    dtype: torch.dtype
    pages: FilePages | None = None  # that the array begins in, where the system can be advised

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    @property
    def T(self) -> StoredTensor:
        return StoredTensor(self.array.T, self.dtype, self.pages)

    def plane(self, index: int) -> StoredTensor:
        """The matrix [first, last] of a tensor [first, planes, last]; its rows lie apart."""
        return StoredTensor(self.array[:, index], self.dtype)

    def read(self) -> Tensor:
        """The whole tensor, contiguous; do not write to it."""
        return self._tensor(self.array)

    def rows(self, start: int, stop: int) -> Tensor:
        """Rows ``start … stop - 1``, contiguous; do not write to them.

        Where the file holds them contiguous and aligned this is a view of the mapping, otherwise a
        copy of just these rows.
        """
        return self._tensor(self.array[start:stop])

    def reader(self) -> Reader:
        """:meth:`rows` for one pass over a file, from a thread of its own.

        Adjacent rows that the system has not got in memory are read past its cache
        (:class:`DirectFile`), into memory that is used again when they are dropped. Reading raises
        :class:`InputError` when the file became shorter or cannot be read.
        """
        if self.pages is None or not self.array.flags.c_contiguous:
            return self.rows
        return partial(self._read, self.pages, Buffers())

    def _read(self, pages: FilePages, buffers: Buffers, start: int, stop: int) -> Tensor:
        part = pages.read(start * self._row_bytes, stop * self._row_bytes, buffers)
        if part is None:
            return self.rows(start, stop)
        return self._tensor(part.view(self.array.dtype).reshape(-1, *self.shape[1:]))

    def prefetch(self, start: int, stop: int) -> None:
        """Begin to read rows ``start … stop - 1`` from disk; nothing where rows are not adjacent.

        Rows of a transposed matrix lie all over the file and are read as they are used.
        """
        if self.pages is not None and self.array.flags.c_contiguous:
            self.pages.prefetch(start * self._row_bytes, stop * self._row_bytes)

    def release(self, start: int, stop: int) -> None:
        """Drop these rows from the mapping, not from the system's cache; as for ``prefetch``."""
        if self.pages is not None and self.array.flags.c_contiguous:
            self.pages.release(start * self._row_bytes, stop * self._row_bytes)

    @property
    def _row_bytes(self) -> int:
        return self.array.nbytes // self.array.shape[0]

    def _tensor(self, part: np.ndarray[Any, Any]) -> Tensor:
        tensor = torch.from_numpy(_row_major(part))
        return tensor.view(self.dtype) if self.dtype == torch.bfloat16 else tensor


def _row_major(part: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """``part`` itself when it is contiguous, aligned and writable, otherwise a copy that is.

    A transposed matrix is copied in stripes as wide as a cache line: eight times as fast as whole.
    """
    if part.ndim != 2 or part.strides[1] == part.itemsize:
        return np.require(part, requirements=("C", "A", "W"))
    copy = np.empty(part.shape, part.dtype)
    width = CACHE_LINE_BYTES // part.itemsize
    for left in range(0, part.shape[1], width):
        copy[:, left : left + width] = part[:, left : left + width]
    return copy


@dataclass(frozen=True)
class TensorFile:
    """The named tensors of one checkpoint file."""

    path: Path
    tensors: Mapping[str, StoredTensor]
    values: Mapping[str, Any] = field(default_factory=dict)
    """What a torch file holds beside tensors: numbers, text and containers of them."""

    def __post_init__(self) -> None:
        unprintable = next((name for name in self.tensors if not name.isprintable()), None)
        if unprintable is not None:
            raise InputError(f"{self.path}: damaged: a tensor is called {quoted(unprintable)}")

    def get(self, name: str) -> StoredTensor:
        if name not in self.tensors:
            raise InputError(f"{self.path} has no tensor {quoted(name)}; it has {self.describe()}")
        return self.tensors[name]

    def describe(self, limit: int = LISTED) -> str:
        """Names and shapes, for error messages: ``W_dec [1024, 64], b_dec [64]``."""
        if not self.tensors:
            return "no tensors"
        listed = [f"{name} {list(stored.shape)}" for name, stored in self.tensors.items()]
        more = f" and {len(listed) - limit} more" if len(listed) > limit else ""
        return ", ".join(listed[:limit]) + more


class RowSource(Protocol):
    """A matrix on disk that is read by rows."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> torch.dtype: ...

    def rows(self, start: int, stop: int) -> Tensor: ...

    def reader(self) -> Reader: ...

    def prefetch(self, start: int, stop: int) -> None: ...

    def release(self, start: int, stop: int) -> None: ...


class StoredDecoder:
    """A decoder read from disk a slice at a time; float64 rows are rounded to float32.

    A scan reads ahead and drops what is behind it, on Linux.
    """

    def __init__(self, stored: RowSource) -> None:
        self._stored = stored

    @property
    def n_latents(self) -> int:
        return self._stored.shape[0]

    @property
    def d_model(self) -> int:
        return self._stored.shape[1]

    @property
    def dtype(self) -> torch.dtype:
        return torch.float32 if self._stored.dtype == torch.float64 else self._stored.dtype

    def rows(self, start: int, stop: int) -> Tensor:
        """Rows ``start … stop - 1`` [stop - start, d_model]; do not write to them."""
        return self._given(start, self._stored.rows(start, stop))

    def reader(self) -> Reader:
        """See :meth:`StoredTensor.reader`."""
        read = self._stored.reader()
        return lambda start, stop: self._given(start, read(start, stop))

    def _given(self, start: int, rows: Tensor) -> Tensor:
        """Stored rows from ``start`` on as they are handed out."""
        return rows.to(self.dtype)

    def prefetch(self, start: int, stop: int) -> None:
        """See :meth:`StoredTensor.prefetch`."""
        self._stored.prefetch(start, stop)

    def release(self, start: int, stop: int) -> None:
        """See :meth:`StoredTensor.release`."""
        self._stored.release(start, stop)
