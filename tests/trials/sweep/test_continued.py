"""A sweep that was killed, cut or grown ends as if it had not been; no other takes its place."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import pytest

import deltalens
from deltalens.trials import work as sweep_work
from deltalens.trials.result import RANDOM, Candidate, SweepResult
from deltalens.trials.setup.settings import Generation
from helpers.processes import run_helper
from helpers.sweep_files import FILES, lines, same
from helpers.tiny_study import SITE, make_model
from helpers.tiny_sweep import PROMPTS, SETS, W_DEC, CountingJudge, run_sweep


def test_a_second_call_does_nothing(whole: tuple[Path, SweepResult], monkeypatch: Any) -> None:
    run, result = whole
    before = {name: lines(run, name) for name in FILES}
    monkeypatch.setattr(sweep_work.ArmWork, "_sampled", None)
    judge = CountingJudge()
    assert run_sweep(run, judge) == result
    assert not judge.asked
    assert {name: lines(run, name) for name in FILES} == before


def test_a_grown_sweep_keeps_what_it_has(
    whole: tuple[Path, SweepResult], tmp_path: Path, copied: Path
) -> None:
    more: dict[str, Any] = {
        "sets": {**SETS, RANDOM: [*SETS[RANDOM], Candidate(40, 1)]},
        "strengths": (0.5, 1.0, 2.0),
        "samples": 3,
    }
    before = {name: lines(copied, name) for name in FILES}
    grown = run_sweep(copied, **more)
    assert all(lines(copied, name)[: len(rows)] == rows for name, rows in before.items())
    assert same(grown, run_sweep(tmp_path / "anew", **more))


def test_files_cut_anywhere_end_as_an_uninterrupted_sweep(
    whole: tuple[Path, SweepResult], tmp_path: Path, copied: Path
) -> None:
    """What a kill leaves is a prefix of each file; completions are written before verdicts."""
    draw = random.Random(1)
    for _ in range(12):
        for name in FILES:
            path = copied / "steering" / name
            size = path.stat().st_size
            os.truncate(path, draw.choice([draw.randrange(size + 1), size, 0]))
        assert run_sweep(copied) == whole[1]
        for name in FILES:
            assert sorted(lines(copied, name)) == sorted(lines(whole[0], name))


def test_killed_at_random_moments_a_sweep_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    done = run_helper("sweep_to_kill", str(tmp_path), "15", timeout=300, OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    runs = list(tmp_path.glob("cut*"))
    assert len(runs) >= 15 // 2
    for run in runs:
        assert SweepResult.load(run) == SweepResult.load(tmp_path / "whole")
        for name in FILES:
            assert sorted(lines(run, name)) == sorted(lines(tmp_path / "whole", name))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"generation": Generation(4, seed=5)}, r"seed \(4 there, 5 here\)"),
        ({"generation": Generation(5, seed=4)}, r"max_new_tokens \(4 there, 5 here\)"),
        ({"prompts": PROMPTS[:3]}, "prompts"),
        ({"site": 0}, "site"),
        ({"decoder": W_DEC + 1}, "sae"),
        ({"models": {"away": make_model(seed=5)}}, "model"),
    ],
)
def test_another_sweep_in_the_same_place_is_refused(
    copied: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(deltalens.InputError, match=f"other settings: .*{message}"):
        run_sweep(copied, **changes)


def test_settings_without_a_completion_bind_nothing(
    tmp_path: Path, whole: tuple[Path, SweepResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*args: Any, **kwargs: Any) -> Any:
        raise deltalens.InputError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(sweep_work.ArmWork, "_sampled", failing)
        with pytest.raises(deltalens.InputError, match="out of memory"):
            run_sweep(tmp_path, generation=Generation(5, seed=9), site=0)
    assert run_sweep(tmp_path) == whole[1]


def test_a_sweep_of_an_earlier_version_is_continued(copied: Path, whole: Any) -> None:
    path = copied / "steering" / "settings.json"
    kept = json.loads(path.read_text())
    assert kept["sampling"]["site"] == f"blocks.{SITE}.hook_resid_post"
    kept["sampling"]["site"] = f"model.layers.{SITE}"
    path.write_text(json.dumps(kept))
    assert run_sweep(copied) == whole[1]


def test_one_process_at_a_time(tmp_path: Path) -> None:
    from deltalens.storage.lock import lock_in, locked

    said = f"process {os.getpid()} on .* is writing to"
    with locked(lock_in(tmp_path)), pytest.raises(deltalens.InputError, match=said):
        run_sweep(tmp_path)
