"""Tensors that lie in a file and need no memory of their own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO

import numpy as np
import torch
from torch import Tensor

from deltalens.storage.atomic import writing


def mapped_tensor(path: Path, shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
    """A new file of zeros as a tensor; what is written to it lies in the file.

    Raises :class:`~deltalens.errors.Unfinished` where there is no room for it: a page that the disk
    has no room for ends a process without a word.
    """
    path.unlink(missing_ok=True)  # of a run that was cut
    size = shape[0] * shape[1] * dtype.itemsize
    with writing(path):
        with path.open("wb") as file:
            _reserve(file, max(1, size))
        mapped = np.memmap(path, dtype=np.uint8, mode="r+")
    return torch.from_numpy(mapped[:size]).view(dtype).view(shape)


def _reserve(file: IO[bytes], size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)
    else:  # not on macOS and Windows
        file.truncate(size)
