"""The judges of a sweep: what they see, what they leave out, and where they fail."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from deltalens.errors import InputError
from deltalens.judge import JudgeError
from deltalens.trials import work as sweep_work
from deltalens.trials.log import read_completions, read_graded, read_verdicts
from deltalens.trials.result import SIGNS
from helpers.sweep_files import DIRECTIONS, FILES, JUDGE, answered, lines, strengths_tried
from helpers.tiny_sweep import CountingJudge, run_sweep


def test_a_judge_that_fails_midway_loses_nothing(tmp_path: Path, whole: Any) -> None:
    judge = CountingJudge()
    judge.fail_after = 70
    with pytest.raises(JudgeError, match="gone away"):
        run_sweep(tmp_path, judge)
    kept = read_verdicts(tmp_path / "steering" / FILES[1])
    assert answered(tmp_path, FILES[1:2]) == 70
    assert len(kept) >= 70
    judge.fail_after = None
    assert run_sweep(tmp_path, judge) == whole[1]
    assert len(judge.asked) == answered(tmp_path, FILES[1::2])


def test_a_judge_that_leaves_answers_out_is_an_error(tmp_path: Path) -> None:
    judge = CountingJudge()
    judge.grade = lambda answers: iter([])  # type: ignore[method-assign]
    with pytest.raises(JudgeError, match=r"left out \d+ of 92"):
        run_sweep(tmp_path, judge)


def test_two_judges_grade_the_same_completions(copied: Path, whole: Any, monkeypatch: Any) -> None:
    other = CountingJudge(resamples=0, version="2" * 16)
    monkeypatch.setattr(sweep_work.ArmWork, "_sampled", None)
    second = run_sweep(copied, other)
    assert second.settings["judge"]["id"] == "letters-22222222"
    files = [f"{direction}.letters-22222222.jsonl" for direction in DIRECTIONS]
    assert len(other.asked) == answered(copied, files)
    conditions = sum(map(len, [s for d in SIGNS for s in strengths_tried(whole[0], d).values()]))
    assert sum(len(lines(copied, name)) for name in files) == 8 * conditions + 2 * 12
    graded = read_graded(copied, "away", "letters-22222222")
    assert {key.attempt for key in graded} == {0}
    assert len(read_graded(copied, "away", JUDGE)) > len(graded)


def test_judges_of_a_sweep_see_final_answers(tmp_path: Path, monkeypatch: Any) -> None:
    said = "<think>\nhm\n</think>\n\n"
    monkeypatch.setattr(
        "deltalens.trials.work.completion_reader", lambda _: lambda ids: f"{said}w{len(ids)}"
    )
    judges = {sees: CountingJudge() for sees in ("final", "all")}
    for sees, judge in judges.items():
        run_sweep(tmp_path, judge, judge_sees=sees)
        assert judge.asked
        assert all(answer.text.startswith("<think>") == (sees == "all") for answer in judge.asked)
    found = read_completions(tmp_path / "steering" / "away.jsonl")
    assert all(completion.text.startswith(said) for completion in found.values())
    with pytest.raises(InputError, match="judge_sees must be"):
        run_sweep(tmp_path, judge_sees="none")
