"""Pairs sampled by one process, by several that torchrun's agent starts, and by an array's jobs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from deltalens.ranks.shard import Shard, ShardDone
from helpers.graded_answers import HashJudge
from helpers.pairs_by_ranks import sample
from helpers.processes import run_helper

SAMPLES = 3 * 6


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Pairs by 1, 2 and 3 processes, and by two after one of three was killed."""
    directory = tmp_path_factory.mktemp("pairs")
    done = run_helper("pairs_by_ranks", str(directory), OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    assert "killed.samples.part-1.jsonl" in done.stdout
    return directory


def lines(path: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return sorted(rows, key=lambda row: row["stream"])


@pytest.mark.parametrize("name", ["pairs-2", "pairs-3", "killed"])
def test_pairs_and_logs_are_those_of_one_process(made, name):
    assert (made / f"{name}.jsonl").read_bytes() == (made / "pairs-1.jsonl").read_bytes()
    for log in ("samples", "answers"):
        found = lines(made / f"{name}.{log}.jsonl")
        assert len(found) == SAMPLES  # nothing was sampled or graded twice
        assert found == lines(made / f"pairs-1.{log}.jsonl")
    assert not list(made.glob("*.part-*"))


def test_jobs_of_an_array_sample_their_own_and_the_command_completes(made, tmp_path):
    out = tmp_path / "pairs.jsonl"
    for number in (1, 0):
        judge = HashJudge()
        with pytest.raises(ShardDone):
            sample(out, judge, ranks=Shard(number=number, of=3))
        assert len(judge.asked) <= SAMPLES // 3
        assert len(lines(tmp_path / f"pairs.samples.part-{number}.jsonl")) == SAMPLES // 3
    sample(out, HashJudge())
    assert out.read_bytes() == (made / "pairs-1.jsonl").read_bytes()
    assert lines(tmp_path / "pairs.answers.jsonl") == lines(made / "pairs-1.answers.jsonl")
    assert not list(tmp_path.glob("*.part-*"))
