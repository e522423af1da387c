"""What a verdict on kernels and measured rates hold for: this device, these versions, this code."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import json
import os
import platform
import re
from collections.abc import Iterable
from pathlib import Path

import torch

from deltalens.engine.numerics.extension import cpu_extension, cpu_level

_ENGINE = Path(__file__).parents[1]
_NVIDIA = Path("/proc/driver/nvidia/version")


def conditions(impl: str, device: torch.device | str) -> dict[str, str]:
    """Of the implementation's kernels on the device; equal wherever a verdict on them holds."""
    device = torch.device(device)
    found = {
        "impl": impl,
        "device": device_name(device),
        "driver": driver() if device.type == "cuda" else "",
        "torch": torch.__version__,
        "code": _code_of(impl),
    }
    if impl == "triton":
        found["triton"] = triton_version()
    if impl == "cpp":
        found["level"] = cpu_level() or ""
    return found


def device_conditions(device: torch.device | str) -> dict[str, str]:
    """What rates of the device depend on."""
    device = torch.device(device)
    fast = "triton" if device.type == "cuda" else "cpp"
    threads = "" if device.type == "cuda" else str(torch.get_num_threads())
    return {**conditions(fast, device), "threads": threads}


def digest(found: dict[str, str]) -> str:
    """A name for the conditions that fits into a file's."""
    text = json.dumps(found, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def device_name(device: torch.device) -> str:
    """Of the GPU or the processor."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()


@functools.cache
def driver() -> str:
    """Version of NVIDIA's kernel module; that of CUDA where it does not say."""
    try:
        told = _NVIDIA.read_text(encoding="utf-8")
    except OSError:
        told = ""
    found = re.search(r"Module.*?(\d+\.\d[\d.]*)", told)
    return found[1] if found else f"CUDA {torch.version.cuda}"


@functools.cache
def triton_version() -> str:
    """Triton's, and whether it interprets; empty when it is not installed."""
    if importlib.util.find_spec("triton") is None:
        return ""
    import triton

    return triton.__version__ + (" interpreter" if interpreted() else "")


def interpreted() -> bool:
    """Whether Triton's kernels run in its interpreter, on the CPU."""
    return os.environ.get("TRITON_INTERPRET") == "1"


@functools.cache
def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


@functools.cache
def _code_of(impl: str) -> str:
    """A hash of the kernels and of what bounds their errors."""
    own = [*_ENGINE.glob(f"impl/{impl}*.py"), *_ENGINE.glob(f"latent/impl/{impl}.py")]
    files = sorted([*own, *_kernels(impl)], key=lambda path: path.name)
    whole = hashlib.sha256()
    for path in files:
        content = path.read_bytes()
        whole.update(f"{path.name} {len(content)}\n".encode() + content)
    return whole.hexdigest()[:24]


def _kernels(impl: str) -> Iterable[Path]:
    if impl == "cpp":
        extension = cpu_extension()
        return [] if extension is None else [Path(str(extension.__file__))]
    if impl == "triton":
        spec = importlib.util.find_spec("deltalens.kernels")
        folders = (spec.submodule_search_locations or []) if spec else []
        return [path for folder in folders for path in Path(folder).glob("*.py")]
    return []
