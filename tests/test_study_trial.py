"""Outcomes of a steering trial counted by hand."""

from __future__ import annotations

import pytest

import deltalens
from deltalens.study.steer import Completion
from deltalens.study.trial import Candidate, Condition, conditions, outcome

CANDIDATES = [
    Candidate("top", 5, 1),
    Candidate("top", 6, -1),
    Candidate("random", 7, 1),
    Candidate("random", 8, 1),
]


def completions(grades: list[str]) -> list[Completion]:
    return [Completion("", None, 0.0, 0, "", grade, 0) for grade in grades]


def test_conditions_are_signed_by_candidate_and_direction():
    assert conditions(CANDIDATES[:2], 0.5, -1, unsteered=2) == [
        Condition("unsteered", None, 0.0),
        Condition("unsteered", None, 0.0),
        Condition("top", 5, -0.5),
        Condition("top", 6, 0.5),
    ]


def test_changes_band_and_counts():
    grades = (
        ["bad", "good", "good", "good"] * 2  # unsteered: 2 of 8
        + ["bad", "bad", "bad", "bad"]  # latent 5: 4 of 4
        + ["good", "bad", "incoherent", "bad"]  # latent 6: 2 of 3
        + ["good", "good", "good", "good"]  # latent 7: 0 of 4
        + ["bad", "bad", "good", "bad"]  # latent 8: 3 of 4
    )
    found = outcome(CANDIDATES, completions(grades), unsteered=2)
    assert found.unsteered.behaviour.value == 0.25
    assert [item.change for item in found.steered] == pytest.approx(
        [0.75, 2 / 3 - 0.25, -0.25, 0.5]
    )
    assert found.band == (-0.25, 0.5)
    assert found.mean_change("top") == pytest.approx((0.75 + 2 / 3 - 0.25) / 2)
    assert found.beyond_band("top", 1) == 1
    assert found.beyond_band("top", -1) == 0
    assert found.of("top")[1].grades.incoherence.count == 1


def test_trials_that_cannot_be_read_are_refused():
    with pytest.raises(deltalens.InputError, match="7 completions do not fit"):
        outcome(CANDIDATES, completions(["bad"] * 7), unsteered=1)
    with pytest.raises(deltalens.InputError, match="random latents"):
        outcome(CANDIDATES[:2], completions(["bad"] * 3), unsteered=1)
