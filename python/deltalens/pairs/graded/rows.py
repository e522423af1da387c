"""Rows of a CSV or JSON Lines file, with where each stands."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from deltalens.errors import InputError, quoted
from deltalens.storage.jsonl import Row, open_binary, parse_lines

LONGEST_FIELD = 1 << 30  # csv's own limit, 128 KiB, is shorter than some answers


def graded_rows(path: Path) -> Iterator[tuple[str, Row]]:
    """(name of the place, row) of every row, numbered from 1 without a heading."""
    if path.suffix == ".csv":
        yield from _csv_rows(path)
    elif path.suffix in (".jsonl", ".json"):
        for number, row in enumerate(parse_lines(path, dict), start=1):
            yield f"{path}, row {number}", row
    else:
        raise InputError(f"{path} must be a .csv or .jsonl file of graded answers")


def _csv_rows(path: Path) -> Iterator[tuple[str, Row]]:
    reader = csv.reader(io.StringIO(_text(path), newline=""), strict=True)
    limit = csv.field_size_limit(LONGEST_FIELD)
    try:
        heading = _heading(path, next(reader, []))
        last = reader.line_num
        for number, values in enumerate(reader, start=1):
            place = f"{path}, row {number} (line {last + 1})"
            last = reader.line_num
            if values:
                yield place, _row(heading, values, place)
    except csv.Error as error:
        raise InputError(
            f"{path}, line {reader.line_num}: cannot be read as CSV: {error}"
        ) from error
    finally:
        csv.field_size_limit(limit)


def _text(path: Path) -> str:
    with open_binary(path) as stream:
        content = stream.read()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}, line {line}: not UTF-8; convert the file") from error


def _heading(path: Path, names: list[str]) -> list[str]:
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{path}: the column {quoted(name)} occurs twice; rename one")
    return names


def _row(heading: list[str], values: list[str], place: str) -> Row:
    if len(values) != len(heading):
        raise InputError(f"{place}: {len(values)} values for {len(heading)} columns")
    return dict(zip(heading, values, strict=True))
