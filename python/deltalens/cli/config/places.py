"""Which options name files or directories, and what they name."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TEXTS = frozenset(
    {"model", "base", "tokenizer", "against", "sae", "baseline", "judge_model", "pairs"}
)
"""Options that are no paths by type: a path is meant where there is a file or directory."""
CODE = frozenset({"judge", "target"})
"""Options with PATH.py:FUNCTION among their values."""
OUTPUTS = ("out", "run_dir")


def is_place(action: argparse.Action) -> bool:
    """Whether its values can be paths."""
    return action.type is Path or action.dest in TEXTS | CODE


def anchored(action: argparse.Action, value: Any, directory: Path) -> Any:
    """A value of ``action`` that was given in ``directory``, for use anywhere."""
    if isinstance(value, list):
        return [anchored(action, one, directory) for one in value]
    if isinstance(value, Path) or (isinstance(value, str) and action.type is Path):
        return type(value)(directory / value)
    if isinstance(value, str) and is_place(action):
        for path in _paths(action, value, directory):
            return value.replace(path, str(directory / path), 1)
    return value


def paths_in(action: argparse.Action, value: Any, directory: Path) -> list[str]:
    """The files and directories, as ``value`` has them, that are there."""
    if not is_place(action):
        return []
    values = value if isinstance(value, list) else [value]
    return [path for one in values for path in _paths(action, str(one), directory)]


def _paths(action: argparse.Action, text: str, directory: Path) -> Iterator[str]:
    """At most one: the text itself, or what is left of NAME=PATH and PATH.py:FUNCTION."""
    if action.dest in CODE:
        candidates = [path] if (path := text.rpartition(":")[0]).endswith(".py") else []
    elif action.dest == "baseline" and text == "zero":
        candidates = []
    else:
        candidates = [text, text.partition("=")[2]]
    for path in candidates:
        if path and "\0" not in path and (directory / path).exists():
            yield path
            return
