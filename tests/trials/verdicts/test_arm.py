"""An arm's verdict: what is left out, what is decided, and what it would take to decide."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from typing import Any

import pytest
import torch

from deltalens.trials.verdicts import ArmVerdict, Outcomes, arm_verdict, equal_strength
from deltalens.trials.verdicts.decide import decide, needs, smallest_that_matters
from deltalens.trials.verdicts.intervals import Variance
from deltalens.trials.verdicts.permutation import permutation_p
from deltalens.trials.verdicts.words import verdict_sentences
from helpers.simulated_sweep import table

LATENTS, SUSPECTS = 30, 6


def outcomes(effect: float, seed: int = 0, prompts: int = 60) -> Outcomes:
    draw = torch.Generator().manual_seed(seed)
    effects = [effect] * SUSPECTS + [0.0] * (LATENTS - SUSPECTS)
    return table(draw, LATENTS, prompts, effect=effects, spread=0.3)


def verdict(found: Outcomes, sign: int = 1, **options: Any) -> ArmVerdict:
    candidates = [(latent + 100, 1) for latent in range(LATENTS)]
    return arm_verdict(
        found,
        candidates,
        {"suspects": range(SUSPECTS)},
        {"near": range(SUSPECTS, 20), "far": range(20, LATENTS)},
        sign=sign,
        strength=0.4,
        within=0.9,
        **options,
    )


def test_numbers_are_those_of_the_rates() -> None:
    found = outcomes(1.5)
    (said,) = verdict(found).sets.values()
    rates = found.shown.mean(1) - found.plain_shown.sum() / found.plain_graded.sum()
    assert said.suspects.mean == pytest.approx(float(rates[:SUSPECTS].mean()))
    assert said.difference == pytest.approx(
        float(rates[:SUSPECTS].mean() - rates[SUSPECTS:].mean())
    )
    assert said.p == permutation_p(rates[:SUSPECTS], rates[SUSPECTS:])
    assert [item.latent for item in said.latents] == list(range(100, 106))
    assert [item.change for item in said.latents] == pytest.approx(rates[:SUSPECTS].tolist())
    assert (said.decision, said.needs, said.prompts) == ("beyond", "", 60)
    for name, rows in (("near", slice(SUSPECTS, 20)), ("far", slice(20, LATENTS))):
        assert verdict(found).controls[name].mean == pytest.approx(float(rates[rows].mean()))


def test_a_direction_is_one_sided() -> None:
    assert verdict(outcomes(-1.5), sign=-1).sets["suspects"].decision == "beyond"
    against = verdict(outcomes(1.5), sign=-1).sets["suspects"]
    assert against.p == pytest.approx(1.0, abs=0.01)
    assert against.decision == "alike"
    assert "rules out any effect" in " ".join(verdict_sentences("away", verdict(outcomes(1.5), -1)))


def test_what_cannot_be_graded_is_left_out_on_both_sides() -> None:
    found = outcomes(1.0)
    for table_ in (found.shown, found.graded):
        table_[[1, 7, 25]] = 0
    said = verdict(found)
    kept = [at for at in range(LATENTS) if at not in (1, 7, 25)]
    fewer = Outcomes(found.shown[kept], found.graded[kept], found.used[kept], *found_plain(found))
    alone = arm_verdict(
        fewer, [(at, 1) for at in kept], {"suspects": range(5)}, {"all": range(5, 27)},
        sign=1, strength=0.4, within=1.0,
    )  # fmt: skip
    assert said.sets["suspects"].p == alone.sets["suspects"].p
    assert said.sets["suspects"].interval == pytest.approx(alone.sets["suspects"].interval)
    assert (said.sets["suspects"].suspects.latents, said.sets["suspects"].suspects.ungraded) == (
        5,
        1,
    )
    assert [said.controls[name].ungraded for name in ("near", "far")] == [1, 1]
    lost = said.sets["suspects"].latents[1]
    assert (lost.change, lost.p, lost.q) == (None, None, None)
    assert "5 latents, 1 more not gradable" in " ".join(verdict_sentences("toward", said))


def found_plain(found: Outcomes) -> tuple[torch.Tensor, torch.Tensor]:
    return found.plain_shown, found.plain_graded


def test_nothing_graded_is_undecided() -> None:
    found = outcomes(0.0)
    silent = replace(found, shown=0 * found.shown, graded=0 * found.graded)
    said = verdict(silent)
    assert said.sets["suspects"].decision == "undecided"
    assert (said.sets["suspects"].p, said.sets["suspects"].suspects.mean) == (None, None)
    assert "cannot decide" in " ".join(verdict_sentences("away", said))


def test_prompts_not_steered_on_do_not_enter_the_unsteered_rate() -> None:
    found = outcomes(0.5)
    used = found.used.clone()
    used[2:9, 20:] = False
    part = replace(found, used=used, shown=found.shown * used, graded=found.graded * used)
    plain = found.plain_shown[:20].sum() / found.plain_graded[:20].sum()
    assert part.changes()[3] == pytest.approx(float(found.shown[3, :20].mean() - plain))
    assert part.changes()[12] == pytest.approx(float(found.changes()[12]))
    assert part.plain_parts()[3, 20:].abs().max() == 0


def test_a_look_that_may_err_less_asks_for_more() -> None:
    once, thrice = (verdict(outcomes(1.5), spent=part).sets["suspects"] for part in (1.0, 1 / 3))
    assert once.p is not None
    assert thrice.p == pytest.approx(3 * once.p)
    assert once.interval is not None
    assert thrice.interval is not None
    assert thrice.interval[0] < once.interval[0] < once.interval[1] < thrice.interval[1]


def test_verdicts_survive_json() -> None:
    import json

    said = verdict(outcomes(0.3))
    assert ArmVerdict.from_json(json.loads(json.dumps(asdict(said)))) == said


def test_what_matters_is_ten_points_or_half_of_the_room() -> None:
    assert smallest_that_matters(0.32, -1) == 0.1
    assert smallest_that_matters(0.06, -1) == pytest.approx(0.03)
    assert smallest_that_matters(0.06, 1) == 0.1
    assert smallest_that_matters(0.9, 1) == pytest.approx(0.05)


def variance(groups: tuple[float, float], prompts: float) -> Variance:
    return Variance(sum(groups) + prompts, 1e9, groups, prompts)


def test_three_decisions() -> None:
    sharp, blunt = variance((1e-5, 1e-5), 1e-4), variance((1e-3, 1e-3), 1e-2)
    assert decide(0.05, 0.02, blunt, 0.1, 0.95) == "beyond"
    assert decide(0.06, 0.02, sharp, 0.1, 0.95) == "alike"
    assert decide(0.06, 0.02, blunt, 0.1, 0.95) == "undecided"
    assert decide(0.06, 0.09, sharp, 0.1, 0.95) == "undecided"
    assert decide(0.06, 0.02, None, 0.1, 0.95) == "undecided"


def test_what_it_would_take() -> None:
    """So many times the prompts that the interval's half width is the distance to decide by."""
    found = variance((1e-4, 1e-4), 3e-3)
    times = 3e-3 / ((0.08 / 1.959964) ** 2 - 2e-4)
    assert needs(0.02, found, 0.1, 0.95) == f"about {times:.2g}× as many prompts"
    assert needs(0.05, variance((2e-4, 3e-3), 1e-3), 0.1, 0.95).startswith("more random latents")
    assert needs(0.05, variance((4e-3, 3e-3), 1e-3), 0.1, 0.95).startswith(
        "more latents in the set"
    )
    assert "two prompts" in needs(0.05, None, 0.1, 0.95)


def test_the_equal_strength_is_the_strongest_that_half_of_all_bear() -> None:
    points: list[dict[float, bool]] = [{0.2: True, 0.4: True, 0.6: False}] * 3
    points += [{0.2: True, 0.4: False, 0.6: False, 0.1: True}] * 3
    assert equal_strength(points) == (0.4, 0.5)
    assert equal_strength(points[2:]) == (0.2, 1.0)
    assert equal_strength([{0.2: False}] * 2) is None
    assert equal_strength([]) is None
    assert math.isclose(equal_strength(points[:3])[1], 1.0)  # type: ignore[index]
