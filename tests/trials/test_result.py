"""Bands, means and choices of sweeps counted by hand."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

import deltalens
from deltalens.trials.rates import Tally
from deltalens.trials.result import (
    ATTRIBUTION,
    MATCHED,
    RANDOM,
    Arm,
    Candidate,
    Curve,
    Direction,
    Point,
    SweepResult,
    incoherence_budget,
    strongest_within,
)


def tally(shown: int, absent: int, incoherent: int = 0) -> Tally:
    return Tally(shown, absent, incoherent, samples=shown + absent + incoherent)


def curve(latent: int, *tallies: Tally, sign: int = 1, chosen: int | None = 0) -> Curve:
    points = [Point(0.1 * (n + 1), item) for n, item in enumerate(tallies)]
    return Curve(latent, sign, points, chosen)


def arm(direction: Direction, unsteered: Tally, curves: list[Curve]) -> Arm:
    return Arm(direction, "model", 2.0, 0.1, unsteered, curves)


RESULT = SweepResult(
    {
        ATTRIBUTION: [Candidate(1, 1), Candidate(2, -1), Candidate(6, 1)],
        RANDOM: [Candidate(3, 1)],
        MATCHED: [Candidate(4, 1), Candidate(5, 1)],
    },
    {
        "toward": arm(
            "toward",
            tally(2, 8),
            [
                curve(1, tally(4, 6), tally(9, 1), chosen=1),  # +70
                curve(2, tally(3, 7), sign=-1),  # +10
                curve(6, tally(0, 0, 10)),  # nothing could be graded
                curve(3, tally(1, 9)),  # −10
                curve(4, tally(5, 5)),  # +30
                curve(5, tally(8, 2), chosen=None),  # no change: no strength is within the budget
            ],
        ),
        "away": arm(
            "away",
            tally(5, 5),
            [
                curve(1, tally(0, 10)),  # −50
                curve(2, tally(3, 7), sign=-1),  # −20
                curve(6, tally(4, 6)),  # −10
                curve(3, tally(4, 6)),  # −10
                curve(4, tally(7, 3)),  # +20
                curve(5, tally(5, 5)),  # 0
            ],
        ),
    },
    {"judge": {"id": "hand-1"}},
)


def test_changes_are_against_the_unsteered_model() -> None:
    changes = RESULT.changes("toward", ATTRIBUTION)
    assert changes[:2] == pytest.approx([0.7, 0.1])
    assert math.isnan(changes[2])
    assert RESULT.mean_change("toward", ATTRIBUTION) == pytest.approx(0.4)
    assert RESULT.mean_change("away", ATTRIBUTION) == pytest.approx(-0.8 / 3)


def test_the_band_is_the_range_of_all_random_sets() -> None:
    assert RESULT.band("toward") == pytest.approx((-0.1, 0.3))
    assert RESULT.band("away") == pytest.approx((-0.1, 0.2))
    assert RESULT.beyond_band("toward", ATTRIBUTION) == 1
    assert RESULT.beyond_band("away", ATTRIBUTION) == 2  # −10 only touches the band
    assert RESULT.beyond_band("toward", MATCHED) == 0


def test_a_latent_without_a_strength_within_the_budget_is_no_change_of_zero() -> None:
    assert RESULT.arms["toward"].chosen(Candidate(5, 1)) is None
    assert math.isnan(RESULT.changes("toward", MATCHED)[1])
    assert RESULT.mean_change("toward", MATCHED) == pytest.approx(0.3)
    assert RESULT.none_within("toward", MATCHED) == 1
    assert RESULT.none_within("away", MATCHED) == 0
    assert RESULT.is_beyond("toward", Candidate(5, 1)) is None


def test_a_sweep_without_random_latents_has_no_band() -> None:
    alone = SweepResult({ATTRIBUTION: RESULT.sets[ATTRIBUTION]}, RESULT.arms, {})
    assert alone.band("away") is None
    assert alone.is_beyond("away", Candidate(1, 1)) is None
    assert alone.beyond_band("away", ATTRIBUTION) == 0
    with pytest.raises(deltalens.InputError, match="latent 77 was not steered"):
        RESULT.arms["away"].curve(Candidate(77, 1))
    with pytest.raises(deltalens.InputError, match="latent 1 was not steered"):
        RESULT.arms["away"].curve(Candidate(1, -1))


@pytest.mark.parametrize(
    ("incoherent", "budget"), [(0, 0.1), (9, 0.1), (10, 0.1), (11, 0.21), (40, 0.5)]
)
def test_the_budget_is_absolute_or_above_the_unsteered_model(
    incoherent: int, budget: float
) -> None:
    unsteered = tally(0, 100 - incoherent, incoherent)
    assert incoherence_budget(unsteered, 0.1) == pytest.approx(budget)


def test_the_strongest_point_within_the_budget_is_chosen() -> None:
    shares = [0, 20, 5, 10, 50]
    points = [Point(-0.1 * (n + 1), tally(0, 100 - s, s)) for n, s in enumerate(shares)]
    assert strongest_within(points, 0.1) == 3
    assert strongest_within(points, 0.05) == 2
    assert strongest_within(points, 0.5) == 4
    assert strongest_within(points[1:2], 0.1) is None


def test_another_limit_chooses_anew() -> None:
    strict = RESULT.with_limit(0.0)
    toward = strict.arms["toward"]
    assert toward.curve(Candidate(6, 1)).chosen is None
    assert toward.curve(Candidate(1, 1)).chosen == 1
    assert (toward.budget, strict.settings["max_incoherence"]) == (0.0, 0.0)
    assert math.isnan(strict.changes("toward", ATTRIBUTION)[2])
    with pytest.raises(deltalens.InputError, match="max_incoherence"):
        RESULT.with_limit(-0.1)


def test_results_survive_the_disk(tmp_path: Path) -> None:
    RESULT.save(tmp_path)
    assert SweepResult.load(tmp_path) == RESULT
    (tmp_path / "steering" / "summary.json").write_text('{"sets": {}}')
    with pytest.raises(deltalens.InputError, match="damaged"):
        SweepResult.load(tmp_path)
    with pytest.raises(deltalens.InputError, match="no finished sweep"):
        SweepResult.load(tmp_path / "elsewhere")
