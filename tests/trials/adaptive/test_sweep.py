"""Adaptive sweeps on a model: part of the whole sweep, the same after any interruption."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

import deltalens
from deltalens.trials import work as sweep_work
from deltalens.trials.log import read_completions
from deltalens.trials.result import SweepResult
from deltalens.trials.weighing import weighed
from helpers.processes import run_helper
from helpers.sweep_to_kill import ADAPTIVE
from helpers.tiny_sweep import CountingJudge, run_sweep

FULL = {**ADAPTIVE, "adaptive": False}


def texts(run: Path) -> dict[str, dict[Any, Any]]:
    return {
        direction: read_completions(run / "steering" / f"{direction}.jsonl")
        for direction in ("away", "toward")
    }


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SweepResult]:
    run = tmp_path_factory.mktemp("adaptive")
    return run, run_sweep(run, **ADAPTIVE)


def test_its_completions_are_among_the_whole_sweep_s_which_uses_them(
    found: tuple[Path, SweepResult], tmp_path: Path
) -> None:
    import shutil

    copied = Path(shutil.copytree(found[0], tmp_path / "copied"))
    anew, continued = run_sweep(tmp_path / "anew", **FULL), run_sweep(copied, **FULL)
    assert anew == continued
    few, whole = texts(found[0]), texts(tmp_path / "anew")
    for direction, completions in few.items():
        assert len(completions) < len(whole[direction])
        first = {key: item for key, item in completions.items() if key.strength in (0.5, 2.0)}
        assert first.items() <= {**whole[direction], **completions}.items()
    assert texts(copied)["away"].items() >= few["away"].items()


def test_a_second_call_does_nothing(found: tuple[Path, SweepResult], monkeypatch: Any) -> None:
    monkeypatch.setattr(sweep_work.ArmWork, "_sampled", None)
    judge = CountingJudge()
    assert run_sweep(found[0], judge, **ADAPTIVE) == found[1]
    assert not judge.asked
    assert SweepResult.load(found[0]) == found[1]


def test_killed_at_random_moments_it_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    done = run_helper(
        "sweep_to_kill", str(tmp_path), "8", "adaptive", timeout=400, OMP_NUM_THREADS="1"
    )
    assert done.returncode == 0, done.stderr
    whole = SweepResult.load(tmp_path / "whole")
    assert whole.settings["adaptive"]
    runs = list(tmp_path.glob("cut*"))
    assert runs
    for run in runs:
        assert SweepResult.load(run) == whole
        assert texts(run) == texts(tmp_path / "whole")


def test_its_budget_is_not_chosen_again(found: tuple[Path, SweepResult]) -> None:
    with pytest.raises(deltalens.InputError, match="with --adaptive and the other budget"):
        weighed(found[1].with_limit(0.5), found[0])


def test_it_says_how_it_goes(tmp_path: Path, caplog: Any) -> None:
    with caplog.at_level(logging.INFO, logger="deltalens.trials"):
        run_sweep(tmp_path, **ADAPTIVE)
    todo = [said for said in caplog.messages if said.startswith("To do: from ")]
    looks = [said for said in caplog.messages if " prompts: " in said]
    assert len(todo) == 1
    assert any(said.startswith("away at ") for said in looks)
    assert all("Δ-attribution" in said and "; so far " in said for said in looks)
