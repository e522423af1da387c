"""One survey made by one process, by several, and by jobs of an array."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import torch

from deltalens.ranks.shard import Shard, ShardDone
from helpers.processes import run_helper
from helpers.same_run import run_content
from helpers.tiny_survey import make_survey

row_store_module = importlib.import_module("deltalens.study.running.row_store")
SIZES = (1, 2, 3)

pytestmark = pytest.mark.filterwarnings("ignore:.*first order disagrees")


def content(directory: Path) -> dict[str, object]:
    runs = {str(p.parent.relative_to(directory)) for p in directory.glob("*/*/metadata.json")}
    assert len(runs) == 9
    assert not list(directory.glob("*/*/.rows"))
    files = {name: (directory / name).read_bytes() for name in ("settings.json", "survey.json")}
    return {**files, **{run: run_content(directory / run) for run in runs}}


@pytest.fixture(scope="module")
def surveys(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("sizes")
    done = run_helper("survey_by_ranks", str(directory), *map(str, SIZES), OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    return directory


@pytest.mark.parametrize("size", SIZES[1:])
def test_it_is_the_same_to_the_bit(surveys, size):
    assert content(surveys / f"survey-{size}") == content(surveys / "survey-1")


def test_jobs_of_an_array_capture_their_own_and_the_call_completes(surveys, tmp_path, monkeypatch):
    monkeypatch.setattr(row_store_module, "SHARD_PAIRS", 4)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for number in range(3):
        with pytest.raises(ShardDone, match=f"shard {number}/3 is done"):
            make_survey(tmp_path / "survey", ranks=Shard(number=number, of=3), save_scores=True)
    rows = list((tmp_path / "survey").glob("*/*/.rows/*.safetensors"))
    assert len(rows) == 7 * 3
    make_survey(tmp_path / "survey", save_scores=True)
    torch.set_num_threads(threads)
    assert content(tmp_path / "survey") == content(surveys / "survey-1")
