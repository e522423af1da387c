"""Finding a checkpoint's files, and saying what is there when they are not."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import Tensor

from deltalens.errors import InputError, quoted
from deltalens.sae.files import OPENERS, open_tensors
from deltalens.storage.json_text import read_json

LISTED = 6
LISTED_TENSORS = 3
OPENED = 2
OPTIONS = 8
TORCH_SUFFIXES = (".pt", ".pth")


def weight_file(path: Path, name: str) -> Path:
    """``path`` if it is a file, otherwise the file ``name`` in it, there or not."""
    return path if path.is_file() else path / name


def torch_file(path: Path) -> Path:
    """``path`` if it is a file, otherwise the only .pt or .pth file in it (``path`` if none is)."""
    if not path.is_dir():
        return path
    found = [entry for entry in path.iterdir() if entry.suffix in TORCH_SUFFIXES]
    return found[0] if len(found) == 1 else path


def torch_file_has(path: Path, *names: str) -> bool:
    """Whether the torch file at ``path``, or the only one in it, holds these tensors.

    A file that is refused is an :class:`InputError` if ``path`` names it, and no otherwise.
    """
    file = torch_file(path)
    if not file.is_file() or file.suffix not in TORCH_SUFFIXES:
        return False
    try:
        tensors = open_tensors(file).tensors
    except InputError:
        if file is path:
            raise
        return False
    return all(name in tensors for name in names)


def require_files(path: Path, format_name: str, *files: Path) -> None:
    """Raise :class:`InputError` saying what ``path`` holds unless all of ``files`` exist."""
    for file in files:
        if not file.is_file():
            raise InputError(
                f"{path} is not a {format_name} checkpoint: {file.name} is missing, "
                f"found {describe(path)}"
            )


def require_torch_file(path: Path, format_name: str, *names: str) -> Path:
    """The torch file at ``path`` with the tensors ``names``, or :class:`InputError`."""
    if not torch_file_has(path, *names):
        raise InputError(
            f"{path} is not a {format_name} checkpoint: a .pt file with {', '.join(names)} "
            f"is missing, found {describe(path)}"
        )
    return torch_file(path)


def read_config(path: Path) -> dict[str, Any]:
    """The JSON object in ``path``."""
    config = read_json(path)
    if not isinstance(config, dict):
        raise InputError(f"{path}: a JSON {type(config).__name__}, expected an object")
    return config


def section(config: dict[str, Any], key: str) -> dict[str, Any]:
    """The object under ``key``; empty where there is none."""
    value = config.get(key)
    return value if isinstance(value, dict) else {}


def count(config: dict[str, Any], key: str, where: Path, most: int) -> int:
    """The whole number ``config[key]`` from 1 to ``most``, such as a TopK's k."""
    value = config.get(key)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise InputError(
            f"{where}: {key} is {quoted(value)}; expected a whole number from 1 to {most}"
        )
    return value


def text(config: dict[str, Any], key: str, where: Path) -> str | None:
    """The text ``config[key]``; None where there is none, or an empty one."""
    value = config.get(key)
    if value is not None and not isinstance(value, str):
        raise InputError(f"{where}: {key} is {quoted(value)}; expected text")
    return value or None


def flag(config: dict[str, Any], key: str, where: Path, default: bool = False) -> bool:
    """Whether ``config[key]`` is true; ``default`` where it is missing or null."""
    value = config.get(key)
    if value is not None and not isinstance(value, bool):
        raise InputError(f"{where}: {key} is {quoted(value)}; expected true or false")
    return default if value is None else value


def first_number(values: Tensor, what: str) -> float:
    """The first number of a tensor, such as a scalar."""
    if not values.numel():
        raise InputError(f"{what} is empty; expected a number")
    return float(values.reshape(-1)[0])


def number(config: dict[str, Any], key: str, where: Path) -> float:
    """The positive number ``config[key]``, such as a mean norm."""
    value = config.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e30:
        raise InputError(f"{where}: {key} is {quoted(value)}; expected a positive number")
    return float(value)


def choose(path: Path, part: str | None, options: Iterable[str], what: str) -> str:
    """``part`` if it is one of the checkpoint's ``options``, or the only one if it is None."""
    known = sorted(options, key=by_number)
    if part in known:
        return part
    if part is None and len(known) == 1:
        return known[0]
    listed = ", ".join(known[:OPTIONS]) + (f" … {known[-1]}" if known[OPTIONS:] else "")
    asked = (
        f"no {what} {quoted(part)}" if part is not None else f"which {what}? Choose one with part="
    )
    raise InputError(f"{path}: {asked}; it has {listed}")


def by_number(name: str) -> list[tuple[int, str]]:
    """A key that sorts names by the numbers in them: 2 before 10."""
    return [(int(piece or 0), text) for text, piece in re.findall(r"(\D*)(\d*)", name)]


def place(path: Path) -> str:
    """``path`` in full, for what its directories say; links of the hub's cache are not followed."""
    return path.absolute().as_posix()


def resid_post(layer: str | int) -> str:
    return f"blocks.{layer}.hook_resid_post"


def describe(path: Path) -> str:
    """What lies at ``path``, for error messages, with tensors of the first files that have any."""
    if path.is_file():
        return _with_tensors(path)
    entries = sorted(path.iterdir())
    if not entries:
        return "an empty directory"
    readable = [entry for entry in entries if entry.suffix in OPENERS and entry.is_file()]
    listed = [
        _with_tensors(entry) if entry in readable[:OPENED] else _name(entry)
        for entry in entries[:LISTED]
    ]
    return ", ".join(listed) + (f" and {len(entries) - LISTED} more" if entries[LISTED:] else "")


def _name(entry: Path) -> str:
    return f"{entry.name}/" if entry.is_dir() else entry.name


def _with_tensors(file: Path) -> str:
    if file.suffix not in OPENERS:
        return file.name
    try:
        return f"{file.name} with {open_tensors(file).describe(LISTED_TENSORS)}"
    except InputError:
        return f"{file.name} (unreadable)"
