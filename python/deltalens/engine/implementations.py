"""Which implementations this installation can run."""

from __future__ import annotations

import torch

from deltalens.engine.extension import cpu_level
from deltalens.errors import InputError

IMPLEMENTATIONS = ("reference", "torch", "cpp", "triton")
AVAILABLE = ("reference", "torch", "cpp")


def choose_impl(impl: str, device: torch.device | str) -> str:
    """The implementation that will run on ``device``: ``impl`` itself, or the choice of "auto".

    "auto" is the compiled kernels on CPUs whose vector instructions they use, otherwise torch.
    Raises :class:`InputError` when an explicit request cannot be honoured.
    """
    device = torch.device(device)
    if impl == "auto":
        return "cpp" if device.type == "cpu" and cpu_level() not in (None, "portable") else "torch"
    if impl == "cpp":
        _check_cpp(device)
    if impl in AVAILABLE:
        return impl
    if impl in IMPLEMENTATIONS:
        raise InputError(
            f"impl={impl!r} has no attribution kernel in this version of deltalens; "
            f"use one of {', '.join(AVAILABLE)} or auto"
        )
    raise InputError(f"impl must be auto or one of {', '.join(IMPLEMENTATIONS)}, got {impl!r}")


def _check_cpp(device: torch.device) -> None:
    if device.type != "cpu":
        raise InputError(f"impl='cpp' runs on the CPU but the rows are on {device}; use torch")
    if cpu_level() is None:
        raise InputError(
            "impl='cpp' needs the compiled extension, which is not there; reinstall deltalens "
            "with a C++ compiler or use torch"
        )
