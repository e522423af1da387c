"""Sums of outer products without rounding, and rows that are hard to sum."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

Rows = tuple[Tensor, Tensor]


def exact_outer(x: Tensor, y: Tensor) -> np.ndarray:
    """xᵀ y as fractions, object [width, width]."""
    (of_x, left), (of_y, right) = map(_integers, (x, y))
    return (left.T @ right) * Fraction(1, of_x * of_y)


def distance(found: Tensor, exact: np.ndarray) -> float:
    """‖found − exact‖₂, the difference taken without rounding."""
    wide = np.vectorize(Fraction, otypes=[object])(found.double().numpy())
    return float(np.linalg.norm((wide - exact).astype(np.float64), 2))


def _integers(rows: Tensor) -> tuple[int, np.ndarray]:
    """Rows times a power of two that makes all of them integers, and that power."""
    fractions = [Fraction(value) for value in rows.double().flatten().tolist()]
    power = max(each.denominator for each in fractions)
    whole = np.array([int(each * power) for each in fractions], dtype=object)
    return power, whole.reshape(rows.shape)


def nasty_rows(kind: str, tokens: int, width: int, seed: int = 0) -> Rows:
    """x and y, fp64 [tokens, width]."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    x, y = normal(tokens, width), normal(tokens, width)
    return _KINDS[kind](x, y, normal(tokens, 1), torch.arange(tokens)[:, None])


def _outlier_columns(x: Tensor, y: Tensor, _: Tensor, __: Tensor) -> Rows:
    x[:, 0] *= 1e6
    y[:, -1] *= 1e6
    return x, y


def _zeros(x: Tensor, y: Tensor, _: Tensor, token: Tensor) -> Rows:
    x[:, 0] = 0
    x[::3] = 0
    y[1::3] = 0
    return x, y * (token % 5 != 0)


_KINDS = {
    "normal": lambda x, y, size, token: (x, y),
    "float32": lambda x, y, size, token: (x.float().double(), y.float().double()),
    "bfloat16": lambda x, y, size, token: (x, (y + 3).bfloat16().double()),
    "heavy": lambda x, y, size, token: (x * size.abs().exp() ** 3, y * size.abs()),
    "opposed": lambda x, y, size, token: (x * 10.0 ** (30 * size), y * 10.0 ** (-30 * size)),
    "huge range": lambda x, y, size, token: (x * 10.0 ** (15 * size), y * 10.0 ** (10 * size)),
    "one large": lambda x, y, size, token: (x * (1 + 1e9 * (token == 0)), y),
    "tiny": lambda x, y, size, token: ((x * 1e-44).float().double(), (y * 1e-40).float().double()),
    "far apart": lambda x, y, size, token: (x * 1e-150, y * 1e150),
    "outlier columns": _outlier_columns,
    "zeros": _zeros,
    "all zeros": lambda x, y, size, token: (0 * x, y),
    "powers of two": lambda x, y, size, token: (x.sign() * 2.0**-3, y.sign() * 2.0**5),
    "cancelling": lambda x, y, size, token: (x[:1] * (-1.0) ** token + 1e-9 * x, y[:1] + 1e-9 * y),
}
KINDS = tuple(_KINDS)
