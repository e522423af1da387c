"""Collects the rows that benchmarks report and writes them as one CSV per suite."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from machine import describe, matmul_rate

RESULTS = Path(__file__).parent / "results"

Row = dict[str, object]


@pytest.fixture(scope="session")
def roof() -> float:
    """FLOP/s of torch's fp32 matmul in this session."""
    return matmul_rate()


@pytest.fixture(scope="module")
def report(request: pytest.FixtureRequest) -> Iterator[Callable[[Row], None]]:
    """A function that takes one row of results; rows are written when the module is done."""
    rows: list[Row] = []
    yield rows.append
    if rows and request.config.getoption("benchmark_enable"):
        suite = request.module.__name__.removeprefix("test_")
        _write(RESULTS / f"{suite}-{_slug(describe()['cpu'])}.csv", rows)


def _write(path: Path, rows: list[Row]) -> None:
    text = io.StringIO()
    columns = [*rows[0], *describe()]
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({**row, **describe()} for row in rows)
    path.parent.mkdir(exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text.getvalue(), encoding="utf-8")
    os.replace(temporary, path)


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
