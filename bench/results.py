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


def write_rows(suite: str, rows: list[Row]) -> Path:
    """bench/results/<suite>-<cpu>.csv with what the rows were measured on."""
    machine = describe()
    text = io.StringIO()
    writer = csv.DictWriter(text, [*rows[0], *machine], lineterminator="\n")
    writer.writeheader()
    writer.writerows({**row, **machine} for row in rows)
    path = RESULTS / f"{suite}-{_slug(machine['cpu'])}.csv"
    path.parent.mkdir(exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text.getvalue(), encoding="utf-8")
    os.replace(temporary, path)
    return path


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
