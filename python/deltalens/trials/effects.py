"""What each latent did at the strength where an arm compares them all, with its interval."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deltalens.errors import InputError
from deltalens.trials.adaptive.plan import Plan
from deltalens.trials.adaptive.settled import half_widths
from deltalens.trials.arm import Prompts
from deltalens.trials.conditions import UNSTEERED, Condition, Grid
from deltalens.trials.log import read_verdicts, verdicts_path
from deltalens.trials.rates import Tally
from deltalens.trials.result import Arm, Candidate, Curve, Direction, Point, SweepResult
from deltalens.trials.setup.settings import read_prompts
from deltalens.trials.verdicts import ArmVerdict
from deltalens.trials.verdicts.decide import LEVEL
from deltalens.trials.verdicts.outcomes import Outcomes
from deltalens.trials.verdicts.result import Interval
from deltalens.trials.weighing import outcomes_at


@dataclass(frozen=True)
class Effect:
    """One candidate, suspect or control, at the strength compared at.

    change: of the behaviour's rate on all prompts that it was steered on, None where nothing could
    be graded; interval: at 95 %, of prompts as a sample. p: the rank of its change among the
    controls', None for a control.
    """

    candidate: Candidate
    change: float | None
    interval: Interval | None
    p: float | None


def arm_effects(result: SweepResult, run: str | Path, direction: Direction) -> list[Effect]:
    """Of every candidate in the order of the arm's curves, from the judge's words in ``run``.

    None where the arm has no verdict or no strength to compare at. Raises :class:`InputError`
    where the words are not there.
    """
    verdict = result.verdicts.get(direction)
    if verdict is None or verdict.strength is None:
        return []
    if result.settings.get("greedy"):
        raise InputError(
            f"the sweep in {run} chose latents greedily, on a part of its prompts; its groups are "
            "no latents to be compared"
        )
    arm = result.arms[direction]
    try:
        outcomes = _outcomes(result, Path(run), arm, verdict.strength)
    except InputError:
        raise
    except Exception as error:  # a damaged file fails in many ways
        raise InputError(
            f"the sweep in {run} is damaged ({error!r}); run deltalens steer {run} again"
        ) from error
    changes, halves = outcomes.changes().tolist(), half_widths(outcomes, 1 - LEVEL).tolist()
    candidates = [Candidate(curve.latent, curve.sign) for curve in arm.curves]
    p_values = _p_values(verdict)
    return [
        _effect(item, change, half, p_values.get(item))
        for item, change, half in zip(candidates, changes, halves, strict=True)
    ]


def _effect(candidate: Candidate, change: float, half: float, p: float | None) -> Effect:
    if math.isnan(change):
        return Effect(candidate, None, None, p)
    return Effect(candidate, change, (change - half, change + half), p)


def _p_values(verdict: ArmVerdict) -> dict[Candidate, float]:
    """Of suspects; of one in several sets it is the same in all of them."""
    return {
        Candidate(item.latent, item.sign): item.p
        for found in verdict.sets.values()
        for item in found.latents
        if item.p is not None
    }


def _outcomes(result: SweepResult, run: Path, arm: Arm, strength: float) -> Outcomes:
    settings = result.settings
    grid = Grid(tuple(settings["strengths"]), settings["samples"], settings["unsteered_samples"])
    order = Plan.of(len(read_prompts(run)), grid, settings["seed"]).looks[-1]
    points = [_point(curve, strength) for curve in arm.curves]
    conditions = [
        Condition(curve.latent, point.strength)
        for curve, point in zip(arm.curves, points, strict=True)
    ]
    prompts: Prompts = {UNSTEERED: _sampled(order, arm.unsteered, grid.unsteered_samples)}
    for condition, point in zip(conditions, points, strict=True):
        prompts[condition] = _sampled(order, point.tally, grid.samples)
    path = verdicts_path(run, arm.direction, settings["judge"]["id"])
    return outcomes_at(conditions, grid, read_verdicts(path), prompts)


def _point(curve: Curve, strength: float) -> Point:
    return next(point for point in curve.points if abs(point.strength) == strength)


def _sampled(order: list[int], tally: Tally, samples: Any) -> list[int]:
    """The prompts behind a tally: all, or as an adaptive sweep takes them, the first of an order
    that the seed fixes."""
    return sorted(order[: tally.samples // samples])
