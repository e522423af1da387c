"""Collects the rows that benchmarks report and writes them as one CSV per suite."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from machine import RateMeter
from results import Row, write_rows
from suite import Report


@pytest.fixture(scope="session")
def meter(tmp_path_factory: pytest.TempPathFactory) -> RateMeter:
    return RateMeter(tmp_path_factory.mktemp("rates"))


@pytest.fixture(scope="module")
def report(request: pytest.FixtureRequest) -> Iterator[Report]:
    """A function that takes rows of results; they are written when the module is done."""
    rows: list[Row] = []
    yield rows.extend
    if rows and request.config.getoption("benchmark_enable"):
        write_rows(request.module.__name__.removeprefix("test_"), rows)
