from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from deltalens.pairs.targets import Targets, read_targets
from deltalens.report.eval_logs import write_inspect_logs
from helpers.tiny_sweep import PROMPTS, CountingJudge, run_sweep


class Vowels(CountingJudge):
    """Another judge, to whom some answers are what they are to none of the others."""

    name = "vowels"


@pytest.fixture(scope="package")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep that two judges have graded, the second of whom it was decided by."""
    run = tmp_path_factory.mktemp("sweep") / "run"
    run_sweep(run, CountingJudge(resamples=0))
    run_sweep(run, Vowels())
    return run


@pytest.fixture(scope="package")
def targets(tmp_path_factory: pytest.TempPathFactory) -> Targets:
    """Of each prompt a word that some answers have."""
    path = tmp_path_factory.mktemp("targets") / "questions.jsonl"
    rows: list[dict[str, Any]] = [
        {"prompt": p} if isinstance(p, str) else {"messages": p} for p in PROMPTS
    ]
    words: list[Any] = ["w1", ["w2", "w3"], "w7", "w1"]
    path.write_text(
        "".join(json.dumps({**r, "target": w}) + "\n" for r, w in zip(rows, words, strict=True))
    )
    return read_targets(path)


@pytest.fixture(scope="package")
def logs(run: Path, targets: Targets, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("logs") / "logs"
    assert write_inspect_logs(run, directory, targets=targets) == len(list(directory.iterdir()))
    return directory


@pytest.fixture(scope="package")
def read(logs: Path) -> list[Any]:
    """Every log, as Inspect reads it."""
    from inspect_ai.log import read_eval_log

    return [read_eval_log(str(path)) for path in sorted(logs.iterdir())]
