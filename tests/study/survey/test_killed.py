"""A survey that is killed goes on where it was, wherever that was."""

from __future__ import annotations

import signal
from collections import Counter
from pathlib import Path

import pytest

from helpers.processes import run_helper
from helpers.same_run import run_content

RUNS = 9
SHARDS = 3 + 2 + 2  # of 9, 6 and 5 pairs, four at a time
POINTS = [
    "pair-3",  # within the first shard
    "captured-2",
    f"captured-{SHARDS}",  # after the last
    "tile-5",  # within the first site's p-values
    "half saved-2",
    "saved-4",  # the first of the second site
    "summary-1",
]


@pytest.fixture(scope="module")
def surveys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory for each point, killed there and gone on with, and a whole one."""
    directory = tmp_path_factory.mktemp("killed")
    done = run_helper("survey_to_kill", str(directory), *POINTS, OMP_NUM_THREADS="1", timeout=300)
    assert done.returncode == 0, done.stderr
    ended = [f"{point} {-signal.SIGKILL} 0" for point in POINTS]
    assert done.stdout.splitlines() == [*ended, "whole 0"], done.stderr
    return directory


def content(directory: Path) -> dict[str, object]:
    runs = {str(p.parent.relative_to(directory)) for p in directory.glob("*/*/metadata.json")}
    files = {name: (directory / name).read_bytes() for name in ("settings.json", "survey.json")}
    return {**files, **{run: run_content(directory / run) for run in runs}}


@pytest.mark.parametrize("point", POINTS)
def test_it_goes_on(surveys, point):
    directory = surveys / point
    assert content(directory) == content(surveys / "whole")
    assert len(content(directory)) == RUNS + 2
    assert not list(directory.rglob("*.tmp"))
    assert not list(directory.glob("*/*/.rows"))
    log = Counter((surveys / f"{point}.log").read_text().splitlines())
    captured = [line for line in log if line.startswith("captured")]
    assert len(captured) == SHARDS - point.startswith("captured")  # killed before it could say so
    assert set(log.values()) == {1}
    assert sum(line.startswith("saved") for line in log) == RUNS
