"""Which implementations this installation can run, and which of them "auto" may take."""

from __future__ import annotations

import importlib.util
import os
import warnings

import torch

from deltalens.engine.numerics.extension import cpu_level
from deltalens.engine.trust.conditions import device_name
from deltalens.engine.trust.quick import verdict_on
from deltalens.engine.trust.verdicts import Verdict, kept_verdict
from deltalens.errors import InputError
from deltalens.ranks.ranks import Ranks

IMPLEMENTATIONS = ("reference", "torch", "cpp", "triton")
TRITON_DEVICES = ("cuda",)  # on which "auto" thinks of Triton
_LEAST_CAPABILITY = (8, 0)

_warned: set[str] = set()


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
    if impl == "triton" and (missing := missing_for_triton(device)):
        raise InputError(f"impl='triton' {missing}; use torch or auto")
    return impl


def agreed_impl(impl: str, device: torch.device | str, ranks: Ranks) -> str:
    """What all of several processes choose; torch where they would not choose the same."""
    chosen = set(ranks.gather(choose_impl(impl, device)))
    return chosen.pop() if len(chosen) == 1 else "torch"


def automatic_impls(device: torch.device | str) -> tuple[str, ...]:
    """What "auto" may choose on ``device``: torch, then those that are right and mostly faster.

    On CPUs that is the compiled kernels where they use vector instructions, unless a verdict has
    found them wrong; on GPUs the Triton kernels where a verdict has found them right and faster.
    Where there is none a quick one is made, see :mod:`deltalens.engine.trust.quick`.
    """
    device = torch.device(device)
    found = ["torch"]
    if device.type == "cpu" and cpu_level() not in (None, "portable"):
        verdict = kept_verdict("cpp", device)
        if verdict is None or _is_good("cpp", device, verdict):
            found.append("cpp")
    if device.type in TRITON_DEVICES and not missing_for_triton(device):
        verdict = verdict_on("triton", device)
        if verdict is not None and _is_good("triton", device, verdict) and verdict.faster:
            found.append("triton")
    return tuple(found)


def _is_good(impl: str, device: torch.device, verdict: Verdict) -> bool:
    """Whether it is; if not, that is said once."""
    message = (
        f"the {impl} kernels are wrong on {device_name(device)} ({verdict.reason}); torch is used "
        "instead: run `deltalens doctor`, and report what it says if it says so too"
    )
    if not verdict.good and message not in _warned:
        _warned.add(message)
        warnings.warn(message, RuntimeWarning, stacklevel=4)
    return verdict.good


def missing_for_triton(device: torch.device) -> str:
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
