"""Adaptive sweeps whose truth is known: stopping when it pays does not make chance pass."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from deltalens.trials.adaptive import Plan, adaptive_arm
from deltalens.trials.adaptive.settled import half_widths, settled
from deltalens.trials.adaptive.strength import probability_within
from deltalens.trials.arm import ArmTrial, distinct
from deltalens.trials.rates import Tally
from deltalens.trials.result import ACTIVATION, ATTRIBUTION, Arm
from deltalens.trials.verdicts import ArmVerdict
from helpers.simulated_sweep import World, grid, table

SWEEPS = 400


def adaptive(world: World, direction: Any, sets: Any = None) -> tuple[Arm, ArmVerdict]:
    sets, work = sets or world.sets(), world
    anything: Any = work
    trial = ArmTrial(anything, distinct(sets), grid(), direction, 0.1, progress=False)
    return adaptive_arm(trial, sets, Plan.of(world.prompts, grid(), 0))


@pytest.fixture(scope="module")
def null() -> list[ArmVerdict]:
    """Suspects that are latents like all others."""
    directions = ("away", "toward")
    worlds = [World(1000 + seed, prompts=40) for seed in range(SWEEPS)]
    return [adaptive(world, directions[n % 2])[1] for n, world in enumerate(worlds)]


def at_most(share: float) -> float:
    return share + 3 * math.sqrt(share * (1 - share) / SWEEPS)


def test_sets_pass_by_chance_no_more_often_than_said(null: list[ArmVerdict]) -> None:
    stopped = {found.prompts for verdict in null for found in verdict.sets.values()}
    assert stopped == {10, 20, 40}
    for name in (ATTRIBUTION, ACTIVATION):
        p_values = [verdict.sets[name].p for verdict in null if verdict.sets]
        for level in (0.05, 0.2):
            passed = sum(p is not None and p <= level for p in p_values) / SWEEPS
            assert passed <= at_most(level)


def test_false_discoveries_are_no_more_than_said(null: list[ArmVerdict]) -> None:
    for name in (ATTRIBUTION, ACTIVATION):
        latents = [verdict.sets[name].latents for verdict in null if verdict.sets]
        passed = sum(any(one.q is not None and one.q <= 0.1 for one in each) for each in latents)
        assert passed / SWEEPS <= at_most(0.1)


def test_the_interval_where_it_stopped_holds_zero(null: list[ArmVerdict]) -> None:
    for name in (ATTRIBUTION, ACTIVATION):
        intervals = [verdict.sets[name].interval for verdict in null if verdict.sets]
        missed = sum(found is not None and not found[0] <= 0 <= found[1] for found in intervals)
        assert missed / SWEEPS <= at_most(0.06)


def test_what_is_there_is_found_for_less() -> None:
    worlds = [World(seed, prompts=100, extra=6.0) for seed in range(20)]
    found = [adaptive(world, "toward")[1].sets[ATTRIBUTION] for world in worlds]
    assert sum(one.decision == "beyond" for one in found) >= 18
    whole = 2 * 36 * 100 + 5 * 100
    assert sum(world.sampled for world in worlds) < 0.4 * 20 * whole


def test_it_ends_the_same_whatever_there_is_already() -> None:
    fresh, full = World(3, prompts=60, extra=1.0), World(3, prompts=60, extra=1.0)
    sets = full.sets()
    anything: Any = full
    trial = ArmTrial(anything, distinct(sets), grid(), "away", 0.1, progress=False)
    trial.sample(trial.candidates, grid().strengths, range(60))
    before = full.sampled
    assert adaptive(fresh, "away") == adaptive(full, "away", sets)
    assert full.sampled - before <= fresh.sampled
    assert set(fresh.verdicts) <= set(full.verdicts)


def test_sampling_does_not_know_who_is_a_suspect_up_to_the_first_look() -> None:
    """With the names of two latents exchanged the same completions are made."""
    one, other = World(5, prompts=40), World(5, prompts=40)
    sets = one.sets()
    first, last = sets[ATTRIBUTION][0], sets["random"][0]
    exchanged = {
        name: [{first: last, last: first}.get(item, item) for item in chosen]
        for name, chosen in other.sets().items()
    }
    plan = replace(Plan.of(40, grid(), 0), looks=[Plan.of(40, grid(), 0).looks[0]], spending=[1.0])
    for world, chosen in ((one, sets), (other, exchanged)):
        anything: Any = world
        trial = ArmTrial(anything, distinct(sets), grid(), "away", 0.1, progress=False)
        adaptive_arm(trial, chosen, plan)
    assert set(one.verdicts) == set(other.verdicts)


def test_a_plan_is_one_order_of_the_prompts() -> None:
    plan = Plan.of(100, grid(), 7)
    assert [len(look) for look in plan.looks] == [25, 50, 100]
    assert plan.looks[0][:10] == plan.pilot
    assert all(b[: len(a)] == a for a, b in zip(plan.looks, plan.looks[1:], strict=False))
    assert sorted(plan.looks[-1]) == list(range(100))
    assert sum(plan.spending) == pytest.approx(1)
    assert plan == Plan.of(100, grid(), 7)
    assert plan != Plan.of(100, grid(), 8)
    few = Plan.of(3, grid(), 0)
    assert (len(few.pilot), [len(look) for look in few.looks]) == (3, [3])
    assert few.spending == pytest.approx([1.0])
    assert len(Plan.of(20, grid(samples=5), 0).pilot) == 2


def test_a_latent_s_interval_holds_at_every_look_together() -> None:
    """Of its true change on these prompts' kind, at level 95 % over three looks of it."""
    draw, missed, trials = torch.Generator().manual_seed(2), 0, 300
    looks = ((25, 0.2), (50, 0.2), (100, 0.6))
    truth = -torch.sigmoid(-0.5 + torch.randn(400_000, generator=draw)).mean()
    wide = (1 + 0.7**2) ** 0.5
    truth += torch.sigmoid(0.3 + wide * torch.randn(400_000, generator=draw)).mean()
    for _ in range(trials):
        found = table(draw, 4, 100, effect=[0.8] * 4, spread=0.0)
        wrong = torch.zeros(4, dtype=torch.bool)
        for size, spent in looks:
            used = found.used.clone()
            used[:, size:] = False
            part = replace(found, used=used, shown=found.shown * used, graded=found.graded * used)
            wrong |= (part.changes() - truth).abs() > half_widths(part, 1 - 0.05 * spent)
        missed += int(wrong.sum())
    assert missed / (4 * trials) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / trials)


def test_settled_is_what_matters_for_certain_or_does_not() -> None:
    draw = torch.Generator().manual_seed(0)
    found = table(draw, 3, 2000, effect=[3.0, 0.0, -3.0], spread=0.0)
    assert settled(found, 0.95) == [True, True, True]
    few = table(draw, 3, 6, effect=[0.5, 0.0, -0.5], spread=0.0)
    assert settled(few, 0.95) == [False, False, False]


def test_few_samples_within_the_budget_are_no_certainty() -> None:
    """Against counting: of shares drawn as the prior has it, those that gave such samples."""
    draw = torch.Generator().manual_seed(1)
    shares = torch.distributions.Beta(0.5, 0.5).sample((400_000,))
    counts = torch.binomial(torch.full_like(shares, 10.0), shares, generator=draw)
    for incoherent in (0, 1, 2):
        alike = shares[counts == incoherent]
        tally = Tally(0, 10 - incoherent, incoherent, samples=10)
        expected = float((alike <= 0.1).double().mean())
        assert probability_within(tally, 0.1) == pytest.approx(expected, abs=0.015)
