"""Inspect's scorers, by the names that users know them by."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import unwrap
from typing import Any

from deltalens.errors import InputError, quoted
from deltalens.judge.callable import imported, source_hash

PACKAGE = "inspect_ai.scorer"


def load_scorer(place: str, arguments: Mapping[str, Any]) -> tuple[Any, str]:
    """The scorer at ``path/file.py@name``, ``module@name`` or, of Inspect's own, ``name``, made
    with ``arguments``; and a hash of its code.

    Raises :class:`InputError` where there is none, or it takes other arguments.
    """
    home, _, name = place.rpartition("@")
    if not name.isidentifier():
        raise InputError(
            f"{quoted(place)} is no scorer; give inspect:name, such as inspect:includes, or "
            "inspect:path/file.py@name"
        )
    check_installed("judge inspect")
    make = getattr(imported(home or PACKAGE), name, None)
    if not callable(make):
        raise InputError(f"{home or PACKAGE} has no scorer {quoted(name)}; check its name")
    try:
        scorer = make(**arguments)
    except Exception as error:
        raise InputError(
            f"the scorer {place} cannot be made with {quoted(dict(arguments))}: {error}; "
            "check --scorer-args"
        ) from error
    if not callable(scorer):
        raise InputError(f"{place} makes {quoted(scorer)}, which is no scorer; check its name")
    return scorer, source_hash(unwrap(make)) if home else _version()


def check_installed(what: str) -> None:
    """Raise :class:`InputError` where there is no Inspect, which ``what`` needs."""
    try:
        import inspect_ai  # noqa: F401
    except ImportError:
        raise InputError(
            f"{what} needs the package inspect_ai: pip install deltalens[inspect]"
        ) from None


def _version() -> str:
    import inspect_ai

    return f"inspect_ai {inspect_ai.__version__}"
