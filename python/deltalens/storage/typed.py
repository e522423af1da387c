"""Values read from files, held against the types that a dataclass says it has."""

from __future__ import annotations

import types
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from deltalens.errors import quoted


def checked_types(value: Any) -> Any:
    """The dataclass ``value``; :class:`TypeError` where a field is of another type than it says.

    Those within it are looked at, too. A whole number may stand for a float, and has 64 bits.
    """
    for name, hint in _hints(value.__class__).items():
        found = getattr(value, name)
        if not _is(found, hint):
            raise TypeError(f"{name} is {quoted(found)}")
    return value


@cache
def _hints(kind: type) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in fields(kind)}


def _is(value: Any, hint: Any) -> bool:
    kind, parts = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if is_dataclass(hint):
        return isinstance(value, hint) and checked_types(value) is value  # type: ignore[arg-type]
    if kind in (Union, types.UnionType):
        return any(_is(value, part) for part in parts)
    if kind is Literal:
        return isinstance(value, str) and value in parts
    if kind is tuple and parts[-1:] != (...,):
        return isinstance(value, tuple) and len(value) == len(parts) and all(map(_is, value, parts))
    if kind in (list, tuple):
        return isinstance(value, kind) and all(_is(item, parts[0]) for item in value)
    if kind is dict:
        items = value.items() if isinstance(value, dict) else [(None, None)]
        return all(_is(key, parts[0]) and _is(item, parts[1]) for key, item in items)
    if hint is float:
        return type(value) is float or (type(value) is int and abs(value) < 1 << 53)
    if hint is int:
        return type(value) is int and abs(value) < 1 << 63
    return type(value) is hint if hint is bool else isinstance(value, hint)
