"""Sweeps whose truth is known: error rates hold where nothing is there; what is there is found."""

from __future__ import annotations

import math
from typing import Any

import pytest

from deltalens.trials.arm import ArmTrial, distinct
from deltalens.trials.result import ACTIVATION, ATTRIBUTION
from deltalens.trials.verdicts import ArmVerdict
from deltalens.trials.weighing import weigh
from helpers.simulated_sweep import STRENGTHS, World, grid

SWEEPS = 400


def full(world: World, direction: Any) -> ArmVerdict:
    sets = world.sets()
    work: Any = world
    trial = ArmTrial(work, distinct(sets), grid(), direction, 0.1, progress=False)
    everything = range(world.prompts)
    trial.sample(trial.candidates, STRENGTHS, everything)
    trial.extend_downward(everything)
    return weigh(trial.arm(), sets, grid(), world.verdicts, trial.prompts)


@pytest.fixture(scope="module")
def null() -> list[ArmVerdict]:
    """Suspects that are latents like all others, signed by push like all others."""
    directions = ("away", "toward")
    return [full(World(seed), directions[seed % 2]) for seed in range(SWEEPS)]


def at_most(share: float, count: int) -> float:
    return share + 3 * math.sqrt(share * (1 - share) / count)


def test_sets_pass_by_chance_no_more_often_than_said(null: list[ArmVerdict]) -> None:
    assert {verdict.strength for verdict in null} == set(STRENGTHS)
    for name in (ATTRIBUTION, ACTIVATION):
        p_values = [verdict.sets[name].p for verdict in null]
        for level in (0.05, 0.2, 0.5):
            passed = sum(p is not None and p <= level for p in p_values) / SWEEPS
            assert passed <= at_most(level, SWEEPS)
        assert sum(p is not None and p <= 0.5 for p in p_values) > 0.4 * SWEEPS  # nor ever


def test_false_discoveries_are_no_more_than_said(null: list[ArmVerdict]) -> None:
    """Where all are false, that is how often any latent passes."""
    for name in (ATTRIBUTION, ACTIVATION):
        latents = [verdict.sets[name].latents for verdict in null]
        passed = sum(any(one.q is not None and one.q <= 0.1 for one in each) for each in latents)
        assert passed / SWEEPS <= at_most(0.1, SWEEPS)


def test_the_interval_of_no_difference_holds_zero(null: list[ArmVerdict]) -> None:
    for name in (ATTRIBUTION, ACTIVATION):
        intervals = [verdict.sets[name].interval for verdict in null]
        held = sum(found is not None and found[0] <= 0 <= found[1] for found in intervals)
        assert held / SWEEPS >= 0.94 - 3 * math.sqrt(0.95 * 0.05 / SWEEPS)


def test_what_is_there_is_found() -> None:
    found = [full(World(seed, extra=6.0), "toward").sets[ATTRIBUTION] for seed in range(40)]
    assert sum(one.decision == "beyond" for one in found) >= 36
    assert all(one.decision != "alike" for one in found)


def test_without_signs_by_push_controls_are_no_standard() -> None:
    """The simulation is one in which the old comparison fails: half of the controls pull back."""
    passed = 0
    for seed in range(60):
        world = World(seed)
        sets = world.sets()
        for name in ("random", "random, matched"):
            sets[name] = [item.__class__(item.latent, 1) for item in sets[name]]
        world.sets = lambda sets=sets: sets  # type: ignore[method-assign, misc]
        p = full(world, "toward").sets[ATTRIBUTION].p
        passed += p is not None and p <= 0.05
    assert passed > 20
