"""Files of tensors whose rows are written as they come, in any order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path
from typing import IO

import torch
from torch import Tensor

from deltalens.storage.atomic import complete_file, write_tensor
from deltalens.storage.tensor_header import Blank, tensor_header


class FilledTensors:
    """The tensors of a file that is being written."""

    def __init__(self, file: IO[bytes], blanks: Mapping[str, Blank]) -> None:
        self._file, self._blanks = file, blanks
        self._data = file.write(tensor_header(blanks))
        file.truncate(filled_bytes(blanks))

    def put(self, name: str, start: int, rows: Tensor) -> None:
        """Write ``rows`` [n, …] from row ``start`` on."""
        shape, dtype = self._blanks[name]
        assert (rows.dtype, tuple(rows.shape[1:])) == (dtype, shape[1:]), name
        row_bytes = torch.Size(shape[1:]).numel() * dtype.itemsize
        self._file.seek(self._start_of(name) + start * row_bytes)
        write_tensor(self._file, rows)

    def _start_of(self, name: str) -> int:
        before = takewhile(lambda other: other != name, self._blanks)
        return self._data + sum(self._blanks[other].nbytes for other in before)


def filled_bytes(blanks: Mapping[str, Blank]) -> int:
    """The size of the file."""
    return len(tensor_header(blanks)) + sum(blank.nbytes for blank in blanks.values())


@contextmanager
def filled_tensors(path: Path, blanks: Mapping[str, Blank]) -> Iterator[FilledTensors]:
    """A safetensors file that is there, whole, when the block succeeds, and else is not."""
    with complete_file(path) as temporary, temporary.open("wb") as file:
        yield FilledTensors(file, blanks)
