"""The sum of outer products in a moment, in fp64 or, where that is slow, from slices."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from deltalens.engine.cost.outer import block_rows, sliced_pays
from deltalens.engine.numerics.outer import add_outer, symmetrise
from deltalens.engine.numerics.precision import exact_matmul, gamma
from deltalens.engine.numerics.slices import Sliced, sliced_outer
from deltalens.engine.trust.rates import known_roofs

_OWN_ROUNDINGS = 8  # of rows before they are added, and of their norms


class OuterSums:
    """sym(Σ_t x_tᵀ y_t) of rows that come in any number of calls, fp64 [width, width].

    Where slices pay at this device's rates (:mod:`deltalens.engine.cost.outer`), rows are kept
    until they are a block. What that may lose is no more than fp64 may.
    """

    def __init__(self, width: int, device: torch.device | str) -> None:
        self.total = torch.zeros(width, width, dtype=torch.float64, device=device)
        self._symmetric = True
        self._magnitude = 0.0  # Σ_t ‖x_t‖ ‖y_t‖
        self._roundings = _OWN_ROUNDINGS  # of every number of the sum
        self._missing = 0.0
        self._roofs = known_roofs(device)
        block = block_rows(width)
        self._waiting = _Rows(block, self.total) if sliced_pays(block, width, self._roofs) else None

    @property
    def rounding(self) -> float:
        """Bound on the spectral norm of what rounding has done to the sum."""
        self._settle()
        return gamma(self._roundings, torch.float64) * self._magnitude + self._missing

    def symmetric(self) -> Tensor:
        """The sum's symmetric part in its own memory, to be read before rows are added again."""
        self._settle()
        if not self._symmetric:
            symmetrise(self.total)
            self._symmetric = True
            self._roundings += 1
        return self.total

    def add(self, x: Tensor, y: Tensor) -> None:
        """Add Σ_t x_tᵀ y_t for x, y fp64 [n, width] on the sum's device; n is of a chunk."""
        if self._waiting is None:
            self._add(x, y, _magnitude(x, y))
            return
        taken = self._waiting.take(x, y)
        if self._waiting.full:
            self._settle()
        if taken < len(x):
            self.add(x[taken:], y[taken:])

    def _settle(self) -> None:
        """Add the rows that wait."""
        if self._waiting is None or not self._waiting.count:
            return
        x, y = self._waiting.leave()
        magnitude = _magnitude(x, y)
        with exact_matmul():
            found = self._sliced(x, y, magnitude)
            if found is None:
                self._add(x, y, magnitude)
            else:
                self.total += found.total
                self._count(magnitude, roundings=2, missing=found.error)

    def _add(self, x: Tensor, y: Tensor, magnitude: float) -> None:
        add_outer(self.total, x, y)
        self._count(magnitude, roundings=len(x))

    def _count(self, magnitude: float, *, roundings: int, missing: float = 0.0) -> None:
        self._magnitude += magnitude
        self._roundings += roundings
        self._missing += missing
        self._symmetric = False

    def _sliced(self, x: Tensor, y: Tensor, magnitude: float) -> Sliced | None:
        """xᵀ y within what fp64 might lose; None where fp64 is to do it."""
        rows, width = x.shape
        if not sliced_pays(rows, width, self._roofs):
            return None
        allowed = gamma(rows - 2, torch.float64) * magnitude
        found = sliced_outer(x, y, allowed)
        if found is None or _agrees(found, x, y, magnitude):
            return found
        self._waiting = None
        warnings.warn(
            f"products of slices were wrong on {self.total.device}: moments are summed in fp64. "
            "Please report this with the output of `deltalens doctor`.",
            RuntimeWarning,
            stacklevel=2,
        )
        return None


class _Rows:
    """Rows of x and of y that wait to be multiplied."""

    def __init__(self, most: int, like: Tensor) -> None:
        self._most = most
        self._like = like
        self._held: tuple[Tensor, Tensor] | None = None
        self.count = 0

    @property
    def full(self) -> bool:
        return self.count == self._most

    def take(self, x: Tensor, y: Tensor) -> int:
        """Copy as many of the first rows as there is room for; how many those were."""
        if self._held is None:
            shape = (self._most, self._like.shape[1])
            self._held = (self._like.new_empty(shape), self._like.new_empty(shape))
        taken = min(len(x), self._most - self.count)
        for held, rows in zip(self._held, (x, y), strict=True):
            held[self.count : self.count + taken] = rows[:taken]
        self.count += taken
        return taken

    def leave(self) -> tuple[Tensor, Tensor]:
        """All of them; nothing is held afterwards."""
        assert self._held is not None
        x, y = (held[: self.count] for held in self._held)
        self._held, self.count = None, 0
        return x, y


def _magnitude(x: Tensor, y: Tensor) -> float:
    return float(x.norm(dim=1) @ y.norm(dim=1))


def _agrees(found: Sliced, x: Tensor, y: Tensor, magnitude: float) -> bool:
    """Whether the sum times a vector of signs is what fp64 makes of x and y, within both bounds."""
    rows, width = x.shape
    random = torch.Generator().manual_seed(rows)
    signs = torch.randint(0, 2, (width,), generator=random).to(x) * 2 - 1
    off = found.total @ signs - x.T @ (y @ signs)
    rounded = gamma(2 * width + rows + 8, torch.float64) * magnitude
    return bool(off.norm() <= width**0.5 * (found.error + rounded))
