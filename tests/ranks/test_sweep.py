"""A sweep by one process, by several that torchrun's agent starts, and by an array's jobs."""

from __future__ import annotations

from pathlib import Path

import pytest

from deltalens.ranks.shard import Shard, ShardDone
from helpers.processes import run_helper
from helpers.tiny_sweep import CountingJudge, run_sweep


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """Sweeps by 1, 2 and 3 processes."""
    directory = tmp_path_factory.mktemp("sweeps")
    done = run_helper("sweep_by_ranks", str(directory), OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    return directory


def same_sweep(found: Path, expected: Path) -> None:
    """Files alike, of logs the lines in whatever order."""
    names = sorted(path.name for path in (expected / "steering").iterdir())
    assert sorted(path.name for path in (found / "steering").iterdir()) == names
    for name in names:
        ours, theirs = ((run / "steering" / name).read_bytes() for run in (found, expected))
        if name.startswith(("away", "toward")):
            assert sorted(ours.splitlines()) == sorted(theirs.splitlines())
        else:
            assert ours == theirs, name


@pytest.mark.parametrize("size", [2, 3])
def test_a_sweep_is_that_of_one_process(runs, size):
    same_sweep(runs / f"run-{size}", runs / "run-1")


def test_jobs_of_an_array_sample_both_arms_and_the_command_completes(runs, tmp_path):
    for number in (1, 0):
        with pytest.raises(ShardDone):
            run_sweep(tmp_path, ranks=Shard(number=number, of=2))
    assert {path.name for path in (tmp_path / "steering").glob("*.part-*")} >= {
        f"{direction}.part-{number}.jsonl" for direction in ("away", "toward") for number in (0, 1)
    }
    judge = CountingJudge()
    run_sweep(tmp_path, judge)
    same_sweep(tmp_path, runs / "run-1")
    assert not list((tmp_path / "steering").glob("*.part-*"))
