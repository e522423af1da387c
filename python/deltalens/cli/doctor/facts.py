"""What is installed and what there is to run on."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

_PACKAGES = ("torch", "triton", "transformers", "safetensors", "numpy")


def devices(asked: str | None) -> list[Any]:
    """Those to examine: ``asked``, or the CPU and the first GPU of every name."""
    import torch

    from deltalens.cli.models.pretrained import choose_device

    if asked is not None:
        return [choose_device(asked)]
    gpus = [torch.device("cuda", number) for number in range(torch.cuda.device_count())]
    kinds = {torch.cuda.get_device_name(gpu): gpu for gpu in reversed(gpus)}
    return [torch.device("cpu"), *reversed(kinds.values())]


def facts() -> dict[str, str]:
    """Versions, processor, extension, Triton, GPUs and folders, each as a line of text."""
    import torch

    from deltalens import __version__
    from deltalens.engine.trust.conditions import device_name
    from deltalens.storage.cache import cache_directory

    found = {"deltalens": __version__, "python": platform.python_version()}
    found |= {name: version for name in _PACKAGES if (version := _version(name))}
    found["processor"] = (
        f"{device_name(torch.device('cpu'))} ({torch.backends.cpu.get_cpu_capability()}), "
        f"{torch.get_num_threads()} threads"
    )
    found["extension"] = _extension()
    found["Triton kernels"] = _triton()
    found["GPUs"] = _gpus()
    found["cache"] = _folder(cache_directory())
    home = os.environ.get("TRITON_CACHE_DIR") or Path.home() / ".triton" / "cache"
    found["Triton's cache"] = _folder(Path(home))
    return found


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _extension() -> str:
    from deltalens.engine.numerics.extension import cpu_extension, cpu_level

    extension = cpu_extension()
    if extension is None:
        return "not there; reinstall with a C++ compiler for the compiled kernels"
    return f"{cpu_level()} is used; there are {', '.join(extension.levels())}"


def _triton() -> str:
    import torch

    from deltalens.engine.trust.implementations import missing_for_triton

    device = "cuda" if torch.cuda.is_available() else "cpu"
    missing = missing_for_triton(torch.device(device))
    if not missing:
        return "run" + (" in the interpreter, on the CPU" if device == "cpu" else "")
    if "not installed" in missing:
        return f"cannot run: {missing}"
    return f"cannot run: {missing}; TRITON_INTERPRET=1 deltalens doctor checks what they compute"


def _gpus() -> str:
    import torch

    from deltalens.engine.trust.conditions import driver

    if not torch.cuda.is_available():
        return "none"
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return f"{', '.join(names)}; driver {driver()}"


def _folder(path: Path) -> str:
    there = next(each for each in (path, *path.parents) if each.exists())
    return f"{path}" + ("" if os.access(there, os.W_OK) else ", which cannot be written to")
