"""What steering did, latent by latent, as JSON values."""

from __future__ import annotations

from typing import Any

from deltalens.report.evidence import Steering
from deltalens.report.text import exact, messages, place_name, readable, short
from deltalens.trials.interventions.intervention import strength_unit
from deltalens.trials.log import Key
from deltalens.trials.rates import Rate, Tally
from deltalens.trials.result import ATTRIBUTION, Arm, Candidate, Direction, Point, SweepResult
from deltalens.trials.side_effects.effects import Estimate, SideEffects
from deltalens.trials.together.latents import Latents
from deltalens.trials.verdicts.shown.points import Mark, all_marks

Json = dict[str, Any]

PROMPTS_SHOWN = 4  # evenly spaced, the same for every latent


def suspects(result: SweepResult) -> dict[int, Candidate]:
    """Latent → how it was steered with by itself: as Δ-attribution says, else as the set it is in
    says."""
    found: dict[int, Candidate] = {}
    for name in sorted(result.sets, key=lambda name: name != ATTRIBUTION):
        for candidate in result.sets[name]:
            if isinstance(candidate.latent, int):
                found.setdefault(candidate.latent, candidate)
    return found


def steering_document(steering: Steering) -> Json:
    """What all cards share: the models, budgets and what they say unsteered."""
    prompts = shown_prompts(steering)
    return {
        "prompts": {number: messages(steering.prompts[number]) for number in prompts},
        "arms": {
            direction: {
                "model": place_name(arm.model),
                "norm": short(arm.norm),
                "unit": strength_unit(steering.result.intervention),
                "budget": short(arm.budget),
                "band": steering.result.band(direction),
                "unsteered": {
                    **tally_values(arm.unsteered),
                    **effect_values(arm.unsteered_effects),
                },
                "completions": _completions(steering, direction, None, 0.0),
            }
            for direction, arm in steering.result.arms.items()
        },
        "points": {
            mark.gid: _point_values(steering.result, mark) for mark in all_marks(steering.result)
        },
    }


def _point_values(result: SweepResult, mark: Mark) -> Json:
    arm = result.arms[mark.direction]
    point = arm.chosen(mark.candidate)
    assert point is not None  # or there were no mark
    return {
        "latent": _shown(mark.candidate),
        "set": mark.group,
        "rank": mark.rank,
        "arm": mark.direction,
        "strength": point.strength,
        "change": exact(arm.change(mark.candidate)),
        **rate_values(point.tally.behaviour),
    }


def _shown(candidate: Candidate) -> int | str:
    """A latent, by which its card is found; of several together their names."""
    return candidate.latent if isinstance(candidate.latent, int) else candidate.label


def latent_steering(steering: Steering, candidate: Candidate) -> Json:
    """One latent's curves and completions in every arm."""
    return {
        direction: _arm_values(steering, arm, candidate)
        for direction, arm in steering.result.arms.items()
    }


def _arm_values(steering: Steering, arm: Arm, candidate: Candidate) -> Json:
    """Without rate and completions where no strength is within the budget."""
    curve, chosen = arm.curve(candidate), arm.chosen(candidate)
    found: Json = {
        "sign": candidate.sign,
        "chosen": curve.chosen,
        "strength": None,
        "change": exact(arm.change(candidate)),
        "beyond": steering.result.is_beyond(arm.direction, candidate),
        "points": [_curve_point(point) for point in curve.points],
        "completions": {},
        "compared": _compared(steering.result, arm.direction, candidate),
    }
    if chosen is None:
        return found
    completions = _completions(steering, arm.direction, candidate.latent, chosen.strength)
    rates = rate_values(chosen.tally.behaviour)
    return {**found, "strength": chosen.strength, "completions": completions, **rates}


def _compared(result: SweepResult, direction: Direction, candidate: Candidate) -> Json | None:
    """A suspect at the strength where all are compared, with its rank among random latents."""
    if (verdict := result.verdicts.get(direction)) is None:
        return None
    latents = [item for found in verdict.sets.values() for item in found.latents]
    for item in latents:
        if (item.latent, item.sign) == (candidate.latent, candidate.sign):
            return {"strength": verdict.strength, "change": item.change, "p": item.p, "q": item.q}
    return None


def _curve_point(point: Point) -> Json:
    found = {"strength": point.strength, **tally_values(point.tally)}
    return found | effect_values(point.side_effects)


def effect_values(found: SideEffects | None) -> Json:
    """Side effects of a condition, as far as they are known."""
    said: Json = {}
    if found is not None and found.neutral is not None:
        neutral = found.neutral
        said["loss"] = short(neutral.loss.value)
        if neutral.rise is not None and neutral.changed is not None:
            said |= {"rise": _estimated(neutral.rise), "changed": _estimated(neutral.changed)}
            said["marked"] = neutral.rises
    if found is not None and found.length is not None:
        length = found.length
        said |= {"length": short(length.mean.value), "cut": short(length.cut_share)}
        if length.change is not None:
            said["longer"] = _estimated(length.change)
    return {"beside": said} if said else {}


def _estimated(found: Estimate) -> list[float | None]:
    """The value, and the ends of its interval where there is one."""
    return [short(found.value), *map(short, found.interval or ())]


def tally_values(tally: Tally) -> Json:
    """Both rates of a condition."""
    return {**rate_values(tally.behaviour), "incoherence": rate_values(tally.incoherence)}


def rate_values(rate: Rate) -> Json:
    """A rate with its interval; null where nothing could be graded."""
    low, high = rate.interval
    return {"rate": exact(rate.value), "low": short(low), "high": short(high), "n": rate.n}


def shown_prompts(steering: Steering) -> list[int]:
    """Evenly spaced, so that no one has picked them."""
    count = len(steering.prompts)
    shown = min(PROMPTS_SHOWN, count)
    return [number * count // shown for number in range(shown)]


def _completions(
    steering: Steering, direction: Direction, latent: Latents | None, strength: float
) -> dict[int, Json]:
    """Prompt → the last attempt at its first sample, with its grade."""
    found = {}
    for prompt in shown_prompts(steering):
        key = Key(latent, strength, prompt, 0, 0)
        while (later := key._replace(attempt=key.attempt + 1)) in steering.graded[direction]:
            key = later
        if key in steering.graded[direction]:
            completion, verdict = steering.graded[direction][key]
            found[prompt] = {
                "text": readable(completion.text),
                "label": readable(verdict.label, 60),
                "outcome": verdict.outcome,
                "why": readable(verdict.raw, 300),
            }
    return found
