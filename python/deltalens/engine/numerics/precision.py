"""Full fp32 matmuls inside the engine, whatever the caller has set for the rest of the process."""

from __future__ import annotations

import math
import threading
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
    with (
        _EXACT,
        torch.no_grad(),
        torch.autocast("cpu", enabled=False),
        torch.autocast("cuda", enabled=False),
    ):
        yield


class _SharedSwitch:
    """Exact fp32 products for the whole process, from the first thread that enters to the last
    that leaves."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._before: list[tuple[object, str, object]] = []

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                settings = _fp32_settings()
                self._before = [(owner, name, getattr(owner, name)) for owner, name, _ in settings]
                for owner, name, exact in settings:
                    setattr(owner, name, exact)
            self._inside += 1

    def __exit__(self, *raised: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                for owner, name, value in self._before:
                    setattr(owner, name, value)


_EXACT = _SharedSwitch()


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
