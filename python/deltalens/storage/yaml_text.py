"""YAML that others wrote, of bounded size once its aliases are written out."""

from __future__ import annotations

from typing import Any

from deltalens.errors import InputError, quoted

MOST_SHARED = 100_000
"""Values that aliases may add to those which the text has itself."""


def compose_yaml(content: bytes) -> Any:
    """The document's root node, None for nothing; what it holds is made by :func:`yaml_value`.

    Raises :class:`InputError`, without the file's name, for what is no YAML, and for aliases that
    repeat too much.
    """
    import yaml

    try:
        root = yaml.compose(content, Loader=yaml.SafeLoader)
        too_much = root is not None and _size(root, {}) > len(content) + MOST_SHARED
    except Exception as error:  # of PyYAML's own kinds, and what its parts run into
        raise InputError(f"not YAML: {_reason(error)}") from None
    if too_much:
        raise InputError("YAML whose aliases repeat too much; write it out")
    return root


def yaml_value(node: Any) -> Any:
    """Plain values of a node; :class:`InputError` as above."""
    from yaml.constructor import SafeConstructor

    try:
        return None if node is None else SafeConstructor().construct_document(node)
    except Exception as error:  # an impossible date, a key that is a list, and more
        raise InputError(f"not YAML: {_reason(error)}") from None


def _size(node: Any, known: dict[int, float]) -> float:
    """How many values there are with every alias written out; infinite where one is in itself."""
    if id(node) not in known:
        known[id(node)] = float("inf")
        parts = node.value if isinstance(node.value, list) else []
        below = (item for part in parts for item in (part if isinstance(part, tuple) else (part,)))
        known[id(node)] = 1 + sum(_size(item, known) for item in below)
    return known[id(node)]


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "nested too deeply"
    mark = getattr(error, "problem_mark", None)
    said = str(getattr(error, "problem", None) or error).partition("\n")[0]
    problem = said if said.isprintable() and len(said) < 100 else quoted(said)
    return problem if mark is None else f"{problem} (line {mark.line + 1})"
