"""Which implementations this installation can run."""

from __future__ import annotations

from deltalens.errors import InputError

IMPLEMENTATIONS = ("reference", "torch", "cpp", "triton")
AVAILABLE = ("reference", "torch")


def choose_impl(impl: str) -> str:
    """The implementation that will run: ``impl`` itself, or the choice of "auto".

    Raises :class:`InputError` when an explicit request cannot be honoured.
    """
    if impl == "auto":
        return "torch"
    if impl in AVAILABLE:
        return impl
    if impl in IMPLEMENTATIONS:
        raise InputError(
            f"impl={impl!r} has no attribution kernel in this version of deltalens; "
            f"use one of {', '.join(AVAILABLE)} or auto"
        )
    raise InputError(f"impl must be auto or one of {', '.join(IMPLEMENTATIONS)}, got {impl!r}")
