"""JSON Lines, one object a line, with errors that carry the line's number."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from deltalens.errors import InputError
from deltalens.storage.json_text import parse_json

Row = dict[str, Any]
T = TypeVar("T")


def parse_lines(path: Path, parse: Callable[[Row], T], *, ended: bool = False) -> Iterator[T]:
    """``parse(object)`` of every non-blank line of ``path``, read as it is consumed.

    ended: without a last line that has no end, which is still being written.

    An :class:`InputError` from ``parse``, like every fault of the line itself, is raised
    again with the file's name and the line's number in front.
    """
    with open_binary(path) as stream:
        for number, line in enumerate(stream, start=1):
            if line.strip() and (not ended or line.endswith(b"\n")):
                try:
                    yield parse(_decode(line.removeprefix(b"\xef\xbb\xbf")))
                except InputError as error:
                    raise InputError(f"{path}, line {number}: {error}") from error


def open_binary(path: Path) -> Any:
    """``path`` opened for reading; a missing or unreadable file is an :class:`InputError`."""
    try:
        return path.open("rb")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; check the path") from error


def _decode(line: bytes) -> Row:
    try:
        row = parse_json(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise InputError(
            f"not UTF-8 (byte 0x{line[error.start]:02x} at column {error.start + 1}); "
            "convert the file to UTF-8"
        ) from error
    except InputError as error:
        raise InputError(f"{error}; each line must be one JSON object") from None
    if not isinstance(row, dict):
        raise InputError(f"found a JSON {type(row).__name__}; each line must be one JSON object")
    return row
