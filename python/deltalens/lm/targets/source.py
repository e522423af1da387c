"""Losses of the user's own: functions in files whose path was typed."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from deltalens.errors import InputError, quoted


def load_function(path: Path, name: str) -> tuple[Callable[..., Any], str]:
    """The function ``name`` of a Python file, and the hash of what the file says.

    This runs the file: exactly what was hashed, by itself, with no folder of its own to import
    from. Raises :class:`InputError` where it cannot be read or run, or has no such function.
    """
    try:
        source = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; check the path") from error
    code = hashlib.sha256(source).hexdigest()[:32]
    module = ModuleType(f"_deltalens_target_{code}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # where dataclasses and pickles look for it
    try:
        exec(compile(source, str(path), "exec"), vars(module))
    except Exception as error:  # whatever the file raises
        raise InputError(f"{path} cannot be run: {type(error).__name__}: {error}") from error
    function = vars(module).get(name)
    if not callable(function):
        raise InputError(f"{path} has no function {quoted(name)}; name one as {path.name}:function")
    return function, code
