"""Sums of outer products in fp64, and their symmetric part."""

from __future__ import annotations

import torch
from torch import Tensor

from deltalens.engine.numerics.extension import cpu_extension, cpu_level

_BLOCK = 512


def add_outer(total: Tensor, x: Tensor, y: Tensor) -> None:
    """total [width, width] += xᵀ y for x, y [n, width], all fp64 on one device.

    On CPUs by the compiled kernels, which are twice as fast as a BLAS without AVX-512.
    """
    extension = cpu_extension() if total.device.type == "cpu" else None
    if extension is None or cpu_level() == "portable":
        total.addmm_(x.T, y)
        return
    arrays = (t.contiguous().numpy() for t in (x, y))
    extension.add_outer(total.numpy(), *arrays, cpu_level(), torch.get_num_threads())


def symmetrise(matrix: Tensor) -> None:
    """matrix [width, width] becomes (matrix + matrixᵀ) / 2, a block at a time."""
    blocks = [slice(start, start + _BLOCK) for start in range(0, matrix.shape[0], _BLOCK)]
    for i, rows in enumerate(blocks):
        for columns in blocks[: i + 1]:
            mean = (matrix[rows, columns] + matrix[columns, rows].T) / 2
            matrix[rows, columns] = mean
            matrix[columns, rows] = mean.T
