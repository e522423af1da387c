"""Finding a checkpoint's files, and saying what is there when they are not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from deltalens.errors import InputError
from deltalens.sae.files import OPENERS, open_tensors

LISTED = 10


def weight_file(path: Path, name: str) -> Path:
    """``path`` if it is a file, otherwise the file ``name`` in it, there or not."""
    return path if path.is_file() else path / name


def require_files(path: Path, format_name: str, *files: Path) -> None:
    """Raise :class:`InputError` saying what ``path`` holds unless all of ``files`` exist."""
    for file in files:
        if not file.is_file():
            raise InputError(
                f"{path} is not a {format_name} checkpoint: {file.name} is missing, "
                f"found {describe(path)}"
            )


def read_config(path: Path) -> dict[str, Any]:
    """The JSON object in ``path``."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON: {error}") from None
    if not isinstance(config, dict):
        raise InputError(f"{path}: a JSON {type(config).__name__}, expected an object")
    return config


def describe(path: Path) -> str:
    """What lies at ``path``, with the tensors of the files that can be read, for error messages."""
    if path.is_file():
        return _describe_entry(path)
    entries = sorted(path.iterdir())
    if not entries:
        return "an empty directory"
    listed = [_describe_entry(entry) for entry in entries[:LISTED]]
    return ", ".join(listed) + (f" and {len(entries) - LISTED} more" if entries[LISTED:] else "")


def _describe_entry(entry: Path) -> str:
    if entry.is_dir():
        return f"{entry.name}/"
    if entry.suffix not in OPENERS:
        return entry.name
    try:
        return f"{entry.name} with {open_tensors(entry).describe()}"
    except InputError:
        return f"{entry.name} (unreadable)"
