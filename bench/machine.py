"""What a result was measured on, and the rates that no code on that machine exceeds."""

from __future__ import annotations

import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

import deltalens


def describe() -> dict[str, str]:
    """Processor, threads, versions and commit."""
    return {
        "cpu": f"{_processor()} ({torch.backends.cpu.get_cpu_capability()})",
        "threads": str(torch.get_num_threads()),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "deltalens": deltalens.__version__,
        "commit": _commit(),
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _commit() -> str:
    run = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    return run.stdout.strip() or "unknown"


def seconds(work: Callable[[], object]) -> float:
    """Wall-clock time of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def interleaved(works: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Wall-clock times of each, every round running all of them once."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            times[name].append(seconds(work))
    return times


@dataclass(frozen=True)
class Rates:
    """FLOP/s in registers (fp32 FMA, products of bf16 pairs; 0 where the machine has none) and of
    torch's fp32 matmul, and bytes/s of a copy."""

    fma: float
    bf16: float
    matmul: float
    copy: float

    def roof(self, dtype: torch.dtype) -> float:
        """FLOP/s no code reaches on decoders of ``dtype``."""
        return self.bf16 if dtype == torch.bfloat16 and self.bf16 else self.fma

    @classmethod
    def median(cls, samples: list[Rates]) -> Rates:
        columns = zip(*((s.fma, s.bf16, s.matmul, s.copy) for s in samples), strict=True)
        return cls(*map(statistics.median, columns))


class RateMeter:
    """Measures the machine's rates in about a second; needs g++ and a folder to compile in."""

    def __init__(self, folder: Path) -> None:
        self._program = folder / "rates"
        source = Path(__file__).with_name("rates.cpp")
        command = ["g++", "-O2", "-std=c++17", "-pthread", source, "-o", self._program]
        subprocess.run(command, check=True)

    def measure(self) -> Rates:
        command = [self._program, str(torch.get_num_threads()), "0.25"]
        run = subprocess.run(command, capture_output=True, text=True, check=True)
        fma, bf16 = map(float, run.stdout.split())
        return Rates(fma, bf16, _matmul_rate(2048), _copy_rate())


def _matmul_rate(size: int) -> float:
    a, b = torch.randn(size, size), torch.randn(size, size)
    return 2 * size**3 / min(seconds(lambda: a @ b) for _ in range(3))


def _copy_rate() -> float:
    source = torch.ones(1 << 25)
    target = torch.empty_like(source)
    return 2 * source.nbytes / min(seconds(lambda: target.copy_(source)) for _ in range(3))
