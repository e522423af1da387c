"""What is installed, in a moment: nothing here waits for torch."""

from __future__ import annotations

import importlib
import os
import platform
from importlib import metadata
from pathlib import Path

from deltalens.version import __version__

_PACKAGES = ("torch", "transformers", "triton")
_DRIVER = Path("/proc/driver/nvidia/gpus")


def version_lines() -> str:
    """The version, alone on its line for programs that read it, and below it what ``doctor`` says
    of the installation before it examines anything."""
    python = f"Python {platform.python_version()}"
    packages = (f"{name} {_version(name)}" for name in _PACKAGES)
    parts = (python, *packages, f"extension {extension_level()}", f"GPU {gpus(_DRIVER)}")
    return f"deltalens {__version__}\n{', '.join(parts)}"


def extension_level() -> str:
    """As :func:`~deltalens.engine.numerics.extension.cpu_level` has it, or why there is none."""
    if os.environ.get("DELTALENS_DISABLE_EXTENSION") == "1":
        return "switched off"
    try:
        levels = importlib.import_module("deltalens._cpu").levels()
    except ImportError:
        return "not there"
    return os.environ.get("DELTALENS_CPU_LEVEL") or str(levels[0])


def gpus(driver: Path) -> str:
    """NVIDIA's by name, as the Linux driver has them, used or not."""
    found = [_model(path) for path in sorted(driver.glob("*/information"))]
    return ", ".join(found) if found else "none seen"


def _model(information: Path) -> str:
    try:
        lines = information.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return "unknown"
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("Model:")), "unknown"
    )


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not there"
