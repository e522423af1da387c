"""One study made by one process and by several, which torchrun's agent starts."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from deltalens.errors import InputError
from deltalens.ranks.shard import Shard, ShardDone
from helpers.processes import run_helper
from helpers.same_run import run_content
from helpers.study_by_ranks import study

row_store_module = importlib.import_module("deltalens.study.running.row_store")
SIZES = (1, 2, 3, 5)


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch):
    monkeypatch.setattr(row_store_module, "SHARD_PAIRS", 2)


@pytest.fixture(autouse=True)
def _threads_of_the_processes() -> Iterator[None]:
    """The same bits take the same number of threads, here as in the processes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """Runs by 1, 2, 3 and 5 processes."""
    directory = tmp_path_factory.mktemp("sizes")
    done = run_helper(
        "study_by_ranks", "sizes", str(directory), *map(str, SIZES), OMP_NUM_THREADS="1"
    )
    assert done.returncode == 0, done.stderr
    return directory


@pytest.mark.parametrize("size", SIZES[1:])
def test_a_study_is_the_same_to_the_bit_whatever_the_number_of_processes(runs, size):
    assert run_content(runs / f"run-{size}") == run_content(runs / "run-1")


def test_every_shard_is_captured_once(runs):
    for size in SIZES:
        captured = (runs / f"run-{size}.captured").read_text().split()
        assert sorted(map(int, captured)) == [0, 2, 4, 6, 8]


def test_a_process_that_is_killed_costs_what_it_had_not_finished(runs, tmp_path):
    done = run_helper("study_by_ranks", "kill", str(tmp_path), OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    kept = done.stdout.split()
    captured = (tmp_path / "killed.captured").read_text().split()
    assert "000002.safetensors" in done.stdout
    assert 1 <= len(kept) <= len(captured)
    assert len(set(captured)) == 5
    # What another process had finished but not yet put in place when it was ended is done again.
    assert captured.count("2") == 1
    assert run_content(tmp_path / "killed") == run_content(runs / "run-1")


def test_latents_own_activations_are_ranked_the_same(tmp_path):
    done = run_helper("study_by_ranks", "latents", str(tmp_path), "1", "3", OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    assert run_content(tmp_path / "run-3") == run_content(tmp_path / "run-1")
    assert json.loads((tmp_path / "run-1" / "metadata.json").read_text())["latent_score"]


def test_jobs_of_an_array_capture_their_own_and_the_command_completes(runs, tmp_path):
    for number in (2, 0):
        with pytest.raises(ShardDone, match=f"shard {number}/3 is done"):
            study(tmp_path / "run", ranks=Shard(number=number, of=3))
    rows = sorted(path.name for path in (tmp_path / "run" / ".rows").glob("*.safetensors"))
    assert rows == ["000000.safetensors", "000004.safetensors", "000006.safetensors"]
    study(tmp_path / "run")
    assert run_content(tmp_path / "run") == run_content(runs / "run-1")


@pytest.mark.parametrize("text", ["4/4", "-1/4", "1", "1/", "a/b", "0/0"])
def test_what_is_no_shard_is_refused(text):
    with pytest.raises(InputError, match=r"a shard is 0/N … N-1/N"):
        Shard.parse(text)


def test_several_processes_need_a_run_directory():
    with pytest.raises(InputError, match="several processes meet in a run directory"):
        study(None, ranks=Shard(number=0, of=2))
