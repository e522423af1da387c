"""The record of a run: what was compared with which version of which library.

A library that is missing is an error here, and so is a test that skips: this environment exists to
make the comparisons.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from comparison import Compared

COMPARED = pytest.StashKey[Counter[tuple[str, str]]]()
ALSO = ("torch", "transformers", "huggingface-hub", "safetensors", "numpy")
HEAD = """\
# Held against the originals

Written by `make test-interop`, when every test passes. An object of the library, with random
weights, is saved with the library's own code and loaded here. Each comparison is of one tensor:
decoder rows must be equal bit for bit; latents must be active at the same places and agree, like
reconstructions, to 1e-5 of the largest value. "Its reader of" a format: the same files read by
SAELens and here, where the format's own library cannot be installed.
"""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--record", type=Path, help="Markdown file to write when all tests passed")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[COMPARED] = Counter()


@pytest.fixture
def compared(request: pytest.FixtureRequest) -> Callable[[str, str], Compared]:
    """``compared(library, what)``: comparisons under this heading of the record."""
    torch.manual_seed(0)
    tally = request.config.stash[COMPARED]

    def begin(library: str, what: str) -> Compared:
        def count() -> None:
            tally[library, what] += 1

        return Compared(count)

    return begin


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    report = yield
    if report.skipped:
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped, which proves nothing"
    return report


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    path = session.config.getoption("record")
    if path is not None and exitstatus == pytest.ExitCode.OK:
        path = session.config.invocation_params.dir / path
        path.parent.mkdir(exist_ok=True)
        path.write_text(_record(session), encoding="utf-8")


def _record(session: pytest.Session) -> str:
    tally = session.config.stash[COMPARED]
    rows = [
        f"| {library} | {version(library)} | {what} | {count} |"
        for (library, what), count in sorted(tally.items())
    ]
    others = ", ".join(f"{name} {version(name)}" for name in ALSO)
    total = f"{tally.total()} comparisons in {session.testscollected} tests, with {others}."
    table = ["| library | version | what | comparisons |", "|---|---|---|--:|", *rows]
    return "\n".join([HEAD, *table, "", total, ""])
