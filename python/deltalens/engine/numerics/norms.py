"""Euclidean norms in fp64."""

from __future__ import annotations

import torch
from torch import Tensor

from deltalens.engine.numerics.extension import as_array, cpu_extension, cpu_level
from deltalens.engine.numerics.precision import SMALLEST_NORMAL, gamma

_WIDENED_ELEMENTS = 1 << 21  # of a copy in fp64 that torch makes


def row_norms(rows: Tensor) -> Tensor:
    """‖rows[i]‖, fp64 [n], for rows [n, d_model] of a decoder; not finite where a row is not."""
    extension = cpu_extension() if rows.device.type == "cpu" else None
    if extension is None or rows.dtype == torch.float64:
        parts = rows.split(max(1, _WIDENED_ELEMENTS // rows.shape[1]))
        return torch.cat(
            [torch.linalg.vector_norm(part, dim=1, dtype=torch.float64) for part in parts]
        )
    # torch widens every number in a slow path of its own: 15 times this.
    norms = extension.row_norms(as_array(rows), cpu_level(), torch.get_num_threads())
    return torch.from_numpy(norms)


def frobenius_bound(matrix: Tensor) -> float:
    """A number just above ‖matrix‖_F, for fp32 [n, m] of magnitudes near 1, in fp32 per row."""
    rows = torch.linalg.vector_norm(matrix, dim=1)
    relative = gamma(matrix.shape[1] + 4, torch.float32)
    flushed = (matrix.numel() * SMALLEST_NORMAL[torch.float32]) ** 0.5
    return float(rows.double().norm()) * (1 + 2 * relative) + flushed


def largest_magnitude(values: Tensor) -> float:
    """max |values|."""
    least, most = values.aminmax()
    return max(-float(least), float(most))
