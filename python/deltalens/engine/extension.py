"""The compiled CPU kernels, where they were built."""

from __future__ import annotations

import functools
import importlib
import os
import warnings
from types import ModuleType


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
