"""A sweep's summary on disk, and its verdicts from the judge's words without a model."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from deltalens.trials.result import ACTIVATION, ATTRIBUTION, RANDOM, SIGNS, Candidate, SweepResult
from deltalens.trials.setup.settings import read_prompts
from deltalens.trials.weighing import weighed
from helpers.sweep_files import JUDGE
from helpers.tiny_sweep import PROMPTS, SETS, run_sweep


def test_the_summary_and_the_prompts_are_on_disk(whole: tuple[Path, SweepResult]) -> None:
    run, result = whole
    assert SweepResult.load(run) == result
    assert read_prompts(run) == PROMPTS
    assert result.settings["judge"]["id"] == JUDGE


def test_choosing_again_needs_no_model(copied: Path, tmp_path: Path) -> None:
    again = weighed(SweepResult.load(copied).with_limit(0.0), copied)
    anew = run_sweep(tmp_path / "anew", max_incoherence=0.0)  # tries weaker strengths, too
    for direction, arm in again.arms.items():
        for curve, other in zip(arm.curves, anew.arms[direction].curves, strict=True):
            assert curve.points[-2:] == other.points[-2:]
            assert arm.budget == anew.arms[direction].budget
    stood_down = [
        (arm, Candidate(curve.latent, curve.sign))
        for arm in again.arms.values()
        for curve in arm.curves
        if curve.chosen is None
    ]
    assert stood_down
    assert all(math.isnan(arm.change(candidate)) for arm, candidate in stood_down)


def test_verdicts_are_those_of_the_judge_s_words_on_disk(whole: Any, copied: Path) -> None:
    without = SweepResult.load(copied).with_limit(0.2)
    assert not without.verdicts
    assert weighed(without, copied) == whole[1]
    for direction, verdict in whole[1].verdicts.items():
        assert verdict.strength is not None
        arm = whole[1].arms[direction]
        for name in (ATTRIBUTION, ACTIVATION):
            for item, candidate in zip(verdict.sets[name].latents, SETS[name], strict=True):
                at = SIGNS[direction] * candidate.sign * verdict.strength
                (point,) = [p for p in arm.curve(candidate).points if p.strength == at]
                if item.change is not None:
                    plain = arm.unsteered.behaviour.value
                    assert item.change == pytest.approx(point.tally.behaviour.value - plain)
        assert set(verdict.controls) == {RANDOM}


def test_a_summary_of_an_earlier_version_has_no_verdict(whole: Any, copied: Path) -> None:
    """Its random latents were added as they are; whatever they did is no standard for suspects."""
    path = copied / "steering" / "summary.json"
    stored = json.loads(path.read_text())
    del stored["verdicts"], stored["settings"]["controls"]
    path.write_text(json.dumps(stored))
    old = SweepResult.load(copied)
    assert (old.arms, old.verdicts) == (whole[1].arms, {})
    assert weighed(old, copied).verdicts == {}
