"""The compiled CPU kernels, where they were built."""

from __future__ import annotations

import functools
import importlib
import os
import warnings
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from deltalens.errors import InputError


def cpu_extension() -> ModuleType | None:
    """``deltalens._cpu``, or None when it was not built or DELTALENS_DISABLE_EXTENSION=1 is set."""
    if os.environ.get("DELTALENS_DISABLE_EXTENSION") == "1":
        return None
    return _load()


@functools.cache
def _load() -> ModuleType | None:
    try:
        return importlib.import_module("deltalens._cpu")
    except ModuleNotFoundError:
        return None
    except ImportError as error:
        warnings.warn(
            f"deltalens._cpu cannot be loaded ({error}); using torch instead. "
            "Reinstall deltalens to build it for this machine.",
            RuntimeWarning,
            stacklevel=3,
        )
        return None


def cpu_level() -> str | None:
    """The level of vector instructions the extension will use, None without the extension.

    The best this machine has, or the one named by the environment variable DELTALENS_CPU_LEVEL:
    avx512_bf16, avx512, avx2 or portable. Raises :class:`InputError` when the machine lacks that.
    """
    extension = cpu_extension()
    if extension is None:
        return None
    available = extension.levels()
    level = os.environ.get("DELTALENS_CPU_LEVEL") or available[0]
    if level not in available:
        raise InputError(
            f"DELTALENS_CPU_LEVEL is {level!r} but this machine has {', '.join(available)}"
        )
    return level


def as_array(rows: Tensor) -> Any:
    """A CPU tensor [n, d_model] as the extension reads it, in place; bfloat16 as its bits."""
    rows = rows.detach()
    if rows.stride(1) != 1:
        rows = rows.contiguous()
    return (rows.view(torch.uint16) if rows.dtype == torch.bfloat16 else rows).numpy()
