"""Rates a device can reach: assumed from its kind, or measured."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

# Matmul GFLOP/s per core in fp32 by vector unit, as torch's own matmul reaches them.
_CPU_GFLOPS_PER_CORE = {"AVX512": 60.0, "AVX2": 35.0}
_CPU_GFLOPS_OTHERWISE = 10.0
_CPU_BYTES_PER_SECOND = 20e9
_CUDA_BYTES_PER_SECOND = 1e12


@dataclass(frozen=True)
class Roofs:
    """FLOP/s of fp32 and fp64 matmuls and bytes/s of memory on one device."""

    device: str
    fp32: float
    fp64: float
    bandwidth: float
    measured: bool


def assumed_roofs(device: torch.device | str) -> Roofs:
    """Rates typical of the kind of device; the same on every call, so a choice is repeatable."""
    device = torch.device(device)
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        fp32 = properties.multi_processor_count * 128 * 2 * 1.5e9
        return Roofs(properties.name, fp32, fp32 / 2, _CUDA_BYTES_PER_SECOND, measured=False)
    capability = torch.backends.cpu.get_cpu_capability()
    per_core = _CPU_GFLOPS_PER_CORE.get(capability, _CPU_GFLOPS_OTHERWISE)
    fp32 = per_core * 1e9 * torch.get_num_threads()
    return Roofs(f"cpu ({capability})", fp32, fp32 / 2, _CPU_BYTES_PER_SECOND, measured=False)


def measured_roofs(device: torch.device | str) -> Roofs:
    """The same by running a matmul and a copy for a fraction of a second each."""
    device = torch.device(device)
    size = 4096 if device.type == "cuda" else 1536
    return Roofs(
        assumed_roofs(device).device,
        _matmul_rate(size, torch.float32, device),
        _matmul_rate(size, torch.float64, device),
        _copy_rate(device),
        measured=True,
    )


def _matmul_rate(size: int, dtype: torch.dtype, device: torch.device) -> float:
    a = torch.randn(size, size, dtype=dtype, device=device)
    b = torch.randn(size, size, dtype=dtype, device=device)
    return 2 * size**3 / _best_time(lambda: a @ b, device)


def _copy_rate(device: torch.device) -> float:
    source = torch.randn(1 << 26, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / _best_time(lambda: target.copy_(source), device)


def _best_time(work: Callable[[], object], device: torch.device) -> float:
    def timed() -> float:
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - start

    return min(timed() for _ in range(5))
