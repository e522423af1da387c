"""Files under bench/results: one CSV per suite and processor."""

from __future__ import annotations

import csv
import io
import os
import re
from pathlib import Path

from machine import describe

RESULTS = Path(__file__).parent / "results"

Row = dict[str, object]


def write_rows(suite: str, rows: list[Row], level: str = "") -> Path:
    """bench/results/<suite>-<cpu>[-<level>].csv with what the rows were measured on."""
    machine = describe()
    return _write(_path(suite, machine, level), [{**row, **machine} for row in rows])


def replace_rows(suite: str, rows: list[Row], key: str) -> Path:
    """As :func:`write_rows`; rows of the file whose ``key`` is none of these rows' stay."""
    machine = describe()
    path = _path(suite, machine)
    measured = {row[key] for row in rows}
    kept: list[Row] = []
    if path.exists():
        with path.open(encoding="utf-8", newline="") as lines:
            kept = [{**row} for row in csv.DictReader(lines) if row[key] not in measured]
    return _write(path, kept + [{**row, **machine} for row in rows])


def _path(suite: str, machine: dict[str, str], level: str = "") -> Path:
    name = f"{suite}-{_slug(machine['cpu'])}"
    return RESULTS / (f"{name}-{_slug(level)}.csv" if level else f"{name}.csv")


def _write(path: Path, rows: list[Row]) -> Path:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    path.parent.mkdir(exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text.getvalue(), encoding="utf-8")
    os.replace(temporary, path)
    return path


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
