"""Rates a device can reach: assumed from its kind, or measured."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from deltalens.engine.impl import cpp as cpp_impl
from deltalens.engine.numerics.extension import cpu_level
from deltalens.engine.numerics.norms import row_norms
from deltalens.engine.numerics.outer import add_outer
from deltalens.engine.numerics.precision import exact_matmul
from deltalens.engine.numerics.slices import LARGEST, LONGEST, exact_product, slice_dtype

_GIGA = 1e9
# GFLOP/s per core: what torch's own matmul reaches in fp32, by vector unit …
_CPU_MATMUL = {"AVX512": 65.0, "AVX2": 35.0}
_CPU_MATMUL_OTHERWISE = 10.0
# … and the compiled kernels by their level: in fp32, over pairs of bfloat16 numbers, in fp64.
_CPU_KERNELS = {
    "avx512_bf16": (110.0, 210.0, 50.0),
    "avx512": (110.0, 0.0, 50.0),
    "avx2": (55.0, 0.0, 25.0),
}
_CPU_KERNELS_PORTABLE = 18.0
_CPU_BANDWIDTH = 40e9
_CPU_FRESH = 3e9  # pages that the kernel hands out and zeroes
_CPU_LINK = 1e9  # a disk
_CPU_CALL = 10e-6
_CUDA_BANDWIDTH = 1e12
_CUDA_LINK = 12e9  # pageable host memory over PCIe
_CUDA_CALL = 8e-6
_CUDA_CLOCK = 1.5e9
_CUDA_REACHED = 0.6  # of the tensor cores' peak
# Dense 16-bit with sums in fp32, per multiprocessor, of chips whose fp64 is half as fast as fp32.
_TENSOR_FLOP_PER_CLOCK = {(8, 0): 2048, (9, 0): 4096, (10, 0): 8192}
_TENSOR_FLOP_OTHERWISE = 1024
_FAST_FP64 = {(6, 0), (7, 0), *_TENSOR_FLOP_PER_CLOCK}  # others have hardly any


@dataclass(frozen=True)
class Roofs:
    """Rates of one device.

    FLOP/s of torch's matmuls in fp32, fp64 and bf16, of a sum of outer products in fp64 and of
    products of its slices, and of our kernels (compiled for CPUs, Triton on GPUs) in fp32 and over
    16-bit numbers, 0 where they have no such path; bytes/s that tensor operations move, that they
    write to memory the process never had, and that rows arrive with from a disk (CPU) or the host
    (GPU); seconds that any tensor operation takes at least.
    """

    device: str
    fp32: float
    fp64: float
    outer: float
    sliced: float
    bf16: float
    kernel_fp32: float
    kernel_16bit: float
    bandwidth: float
    fresh: float
    link: float
    call: float
    measured: bool


def assumed_roofs(device: torch.device | str) -> Roofs:
    """Rates typical of the kind of device; the same on every call, so a choice is repeatable."""
    device = torch.device(device)
    return _assumed_cuda(device) if device.type == "cuda" else _assumed_cpu()


def _assumed_cpu() -> Roofs:
    capability = torch.backends.cpu.get_cpu_capability()
    level = cpu_level()
    rate = _GIGA * torch.get_num_threads()
    fp32 = _CPU_MATMUL.get(capability, _CPU_MATMUL_OTHERWISE) * rate
    portable = (_CPU_KERNELS_PORTABLE if level else 0.0, 0.0, fp32 / rate / 2)
    kernel, pairs, outer = _CPU_KERNELS.get(level or "portable", portable)
    return Roofs(
        device=f"cpu ({capability})",
        fp32=fp32,
        fp64=fp32 / 2,
        outer=outer * rate,
        sliced=fp32,
        bf16=2 * fp32 if pairs else fp32 / 4,
        kernel_fp32=kernel * rate,
        kernel_16bit=pairs * rate,
        bandwidth=_CPU_BANDWIDTH,
        fresh=_CPU_FRESH,
        link=_CPU_LINK,
        call=_CPU_CALL,
        measured=False,
    )


def _assumed_cuda(device: torch.device) -> Roofs:
    properties = torch.cuda.get_device_properties(device)
    clocks = properties.multi_processor_count * _CUDA_CLOCK
    fp32 = 256 * clocks
    chip = (properties.major, properties.minor)
    fp64 = fp32 / 2 if chip in _FAST_FP64 else fp32 / 64
    per_clock = _TENSOR_FLOP_PER_CLOCK.get(chip, _TENSOR_FLOP_OTHERWISE)
    tensor = _CUDA_REACHED * per_clock * clocks
    return Roofs(
        device=properties.name,
        fp32=fp32,
        fp64=fp64,
        outer=fp64,
        sliced=fp32 if slice_dtype(device) == torch.float32 else tensor,
        bf16=tensor,
        kernel_fp32=_CUDA_REACHED * fp32,
        kernel_16bit=tensor,
        bandwidth=_CUDA_BANDWIDTH,
        fresh=_CUDA_BANDWIDTH,  # torch keeps what it once had
        link=_CUDA_LINK,
        call=_CUDA_CALL,
        measured=False,
    )


def measured_roofs(device: torch.device | str) -> Roofs:
    """The same where running something for a fraction of a second can tell.

    torch's rates and the bandwidth are measured, on CPUs the compiled kernels' too; those of the
    Triton kernels and of the disk or host are assumed.
    """
    device = torch.device(device)
    assumed = assumed_roofs(device)
    size = 4096 if device.type == "cuda" else 1024
    kernel_fp32, kernel_16bit = assumed.kernel_fp32, assumed.kernel_16bit
    bf16 = assumed.bf16
    if device.type != "cpu" or kernel_16bit:  # others multiply it so slowly that it is not used
        bf16 = _matmul_rate(size, torch.bfloat16, device)
    if device.type == "cpu" and kernel_fp32:
        kernel_fp32 = _kernel_rate(torch.float32)
        kernel_16bit = _kernel_rate(torch.bfloat16) if kernel_16bit else 0.0
    return Roofs(
        device=assumed.device,
        fp32=_matmul_rate(size, torch.float32, device),
        fp64=_matmul_rate(size, torch.float64, device),
        outer=_outer_rate(size, device),
        sliced=_sliced_rate(size, device),
        bf16=bf16,
        kernel_fp32=kernel_fp32,
        kernel_16bit=kernel_16bit,
        bandwidth=_bandwidth(device),
        fresh=_fresh_rate(device),
        link=assumed.link,
        call=_call_seconds(device),
        measured=True,
    )


def _matmul_rate(size: int, dtype: torch.dtype, device: torch.device) -> float:
    a = torch.randn(size, size, device=device).to(dtype)
    b = torch.randn(size, size, device=device).to(dtype)
    return 2 * size**3 / _best_time(lambda: a @ b, device)


def _kernel_rate(dtype: torch.dtype) -> float:
    """FLOP/s of the compiled quadratic form; over pairs for bfloat16."""
    n_latents, d_model = 2048, 1024
    rows = torch.randn(n_latents, d_model).to(dtype)
    norms = row_norms(rows)
    moment = torch.randn(d_model, d_model, dtype=torch.float64)
    scorer = cpp_impl.QuadraticScorer.prepare(
        (moment + moment.T)[None], torch.zeros(1), screen=dtype == torch.bfloat16
    )
    taken = _best_time(lambda: scorer.scores_and_error(rows, norms), torch.device("cpu"))
    return n_latents * d_model**2 / taken


def _outer_rate(width: int, device: torch.device) -> float:
    total = torch.zeros(width, width, dtype=torch.float64, device=device)
    rows = torch.randn(width, width, dtype=torch.float64, device=device)
    return 2 * width**3 / _best_time(lambda: add_outer(total, rows, rows), device)


def _sliced_rate(size: int, device: torch.device) -> float:
    numbers = torch.randint(-LARGEST, LARGEST + 1, (min(size, LONGEST), size), device=device)
    slices = numbers.to(slice_dtype(device))
    with exact_matmul():
        taken = _best_time(lambda: exact_product(slices, slices), device)
    return 2 * slices.numel() * size / taken


def _bandwidth(device: torch.device) -> float:
    source = torch.randn(1 << 24, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / _best_time(lambda: torch.mul(source, 2, out=target), device)


def _fresh_rate(device: torch.device) -> float:
    """Bytes/s of a result too large for the C library to keep."""
    source = torch.randn(1 << 24, device=device)
    return source.nbytes / _best_time(lambda: source * 2, device)


def _call_seconds(device: torch.device) -> float:
    """An operation on so much that a CPU's threads are woken, and that takes no time itself."""
    source = torch.zeros(1 << 16, device=device)
    target = torch.empty_like(source)
    calls = 50

    def work() -> None:
        for _ in range(calls):
            torch.add(source, 1, out=target)

    return _best_time(work, device) / calls


def _best_time(work: Callable[[], object], device: torch.device) -> float:
    def timed() -> float:
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - start

    return min(timed() for _ in range(5))
