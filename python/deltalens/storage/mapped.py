"""Tensors that lie in a file and need no memory of their own."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor


def mapped_tensor(path: Path, shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
    """A new file of zeros as a tensor; what is written to it lies in the file."""
    path.unlink(missing_ok=True)  # of a run that was cut
    size = shape[0] * shape[1]
    return torch.from_file(str(path), shared=True, size=size, dtype=dtype).view(shape)
