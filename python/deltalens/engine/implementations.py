"""Which implementations this installation can run."""

from __future__ import annotations

import importlib.util
import os

import torch

from deltalens.engine.numerics.extension import cpu_level
from deltalens.errors import InputError

IMPLEMENTATIONS = ("reference", "torch", "cpp", "triton")
_LEAST_CAPABILITY = (8, 0)


def choose_impl(impl: str, device: torch.device | str) -> str:
    """The implementation that will run on ``device``: ``impl`` itself, or for "auto" the fastest
    kind of :func:`automatic_impls`, whatever the shape.

    Raises :class:`InputError` when an explicit request cannot be honoured.
    """
    device = torch.device(device)
    if impl == "auto":
        return automatic_impls(device)[-1]
    if impl not in IMPLEMENTATIONS:
        raise InputError(f"impl must be auto or one of {', '.join(IMPLEMENTATIONS)}, got {impl!r}")
    if impl == "cpp":
        _check_cpp(device)
    if impl == "triton" and (missing := _missing_for_triton(device)):
        raise InputError(f"impl='triton' {missing}; use torch or auto")
    return impl


def automatic_impls(device: torch.device | str) -> tuple[str, ...]:
    """What "auto" may choose on ``device``: torch, then any that is mostly faster.

    That is the compiled kernels on CPUs whose vector instructions they use. The Triton kernels run
    on request only: no GPU has checked them yet (``bench/gpu.sh`` does).
    """
    vectors = torch.device(device).type == "cpu" and cpu_level() not in (None, "portable")
    return ("torch", "cpp") if vectors else ("torch",)


def _missing_for_triton(device: torch.device) -> str:
    """What keeps the Triton kernels from running on ``device``, empty when nothing does."""
    if importlib.util.find_spec("triton") is None:
        return "needs Triton, which is not installed (pip install 'deltalens[triton]')"
    if device.type == "cpu" and os.environ.get("TRITON_INTERPRET") == "1":
        return ""
    cuda = torch.cuda.is_available() and torch.version.hip is None
    if device.type != "cuda" or not cuda:
        return f"needs an NVIDIA GPU but the rows are on {device}"
    capability = torch.cuda.get_device_capability(device)
    if capability < _LEAST_CAPABILITY:
        found, least = (".".join(map(str, c)) for c in (capability, _LEAST_CAPABILITY))
        return f"needs compute capability {least} but {device} has {found}"
    return ""


def _check_cpp(device: torch.device) -> None:
    if device.type != "cpu":
        raise InputError(f"impl='cpp' runs on the CPU but the rows are on {device}; use torch")
    if cpu_level() is None:
        raise InputError(
            "impl='cpp' needs the compiled extension, which is not there; reinstall deltalens "
            "with a C++ compiler or use torch"
        )
