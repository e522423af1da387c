"""Full fp32 matmuls inside the engine, whatever the caller has set for the rest of the process."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

UNIT_ROUNDOFF = {torch.float32: 2.0**-24, torch.float64: 2.0**-53}
# Products below this may be flushed to zero (fp32 on devices, or under set_flush_denormal).
SMALLEST_NORMAL = {torch.float32: 2.0**-126, torch.float64: 2.0**-1022}


def gamma(operations: int, dtype: torch.dtype) -> float:
    """γ_n = n·u / (1 − n·u): relative error of n successive roundings in ``dtype``.

    Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., Lemma 3.1; it holds for any
    order of summation.
    """
    nu = operations * UNIT_ROUNDOFF[dtype]
    return nu / (1.0 - nu)


def power_of_two_scale(largest: float) -> float:
    """A power of two that brings the magnitude ``largest`` near 1 (exact to apply)."""
    if largest == 0.0:
        return 1.0
    return 2.0 ** -max(min(math.floor(math.log2(largest)), 1000), -1000)


@contextmanager
def exact_matmul() -> Iterator[None]:
    """No TF32 or bf16 inside fp32 matmuls, no autocast, no autograd; settings are restored."""
    settings = _fp32_settings()
    before = [getattr(owner, name) for owner, name, _ in settings]
    for owner, name, exact in settings:
        setattr(owner, name, exact)
    try:
        with (
            torch.no_grad(),
            torch.autocast("cpu", enabled=False),
            torch.autocast("cuda", enabled=False),
        ):
            yield
    finally:
        for (owner, name, _), value in zip(settings, before, strict=True):
            setattr(owner, name, value)


def _fp32_settings() -> list[tuple[object, str, object]]:
    backends: Any = torch.backends
    if hasattr(backends.cuda.matmul, "fp32_precision"):
        return [
            (backends.cuda.matmul, "fp32_precision", "ieee"),
            (backends.mkldnn.matmul, "fp32_precision", "ieee"),
        ]
    # torch < 2.9 has one process-wide switch for both.
    return [(_ProcessWidePrecision(), "value", "highest")]


class _ProcessWidePrecision:
    @property
    def value(self) -> str:
        return torch.get_float32_matmul_precision()

    @value.setter
    def value(self, precision: str) -> None:
        torch.set_float32_matmul_precision(precision)
