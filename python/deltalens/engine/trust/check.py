"""One comparison of a kernel with fp64."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

UNIT = 2.0**-22  # of a tensor core's sums; an fp32 sum's is a quarter of it


@dataclass(frozen=True)
class Check:
    """``error``: the largest found; ``limit``: what it may be; ``note``: what was raised."""

    impl: str
    kernel: str
    dtype: str
    shape: str
    error: float
    limit: float
    parts: int = 1
    note: str = ""

    @property
    def ok(self) -> bool:
        return self.error <= self.limit

    def __str__(self) -> str:
        where = f"{self.impl} {self.kernel} {self.dtype} {self.shape}"
        where += f", {self.parts} parts" if self.parts > 1 else ""
        return (
            f"{where}: {self.note or f'error {self.error:.2g} where {self.limit:.2g} is allowed'}"
        )


@dataclass(frozen=True)
class Sizes:
    """Of random operands."""

    tokens: int
    d_model: int
    n_latents: int

    def __str__(self) -> str:
        return f"{self.tokens}×{self.d_model}×{self.n_latents}"


@dataclass(frozen=True)
class Operands:
    """Random numbers of one dtype on one device, the same on every run."""

    impl: str
    device: torch.device
    dtype: torch.dtype
    sizes: Sizes
    parts: int = 1

    def normal(self, *shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
        """Made on the CPU, so that devices can be compared."""
        random = torch.Generator().manual_seed(seed)
        made = torch.randn(*shape, generator=random, dtype=torch.float64)
        return made.to(self.device, dtype)

    def check(self, kernel: str, error: float, limit: float, note: str = "") -> Check:
        return Check(
            self.impl,
            kernel,
            str(self.dtype).removeprefix("torch."),
            str(self.sizes),
            math.inf if math.isnan(error) else error,
            limit,
            self.parts,
            note,
        )

    def holds(self, kernel: str, found: bool) -> Check:
        """Of something that is so or not."""
        return self.check(kernel, 0.0 if found else math.inf, 0.0, "" if found else "not the same")

    def attempt(self, kernel: str, checks: Iterator[Check]) -> Iterator[Check]:
        """The checks; one that raises is a failed one, whatever it raised."""
        try:
            yield from checks
        except Exception as error:
            said = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            yield self.check(kernel, math.inf, 0.0, said)


def worst(found: Tensor, exact: Tensor, size: Tensor) -> float:
    """The largest error relative to ``size``; NaN never passes."""
    return float(((found.double() - exact).abs() / size).nan_to_num(nan=torch.inf).max())
