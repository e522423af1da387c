"""What a steering sweep found, as tables and as plain values."""

from __future__ import annotations

from dataclasses import asdict
from itertools import chain
from typing import Any

from deltalens.cli.output import print_line, print_table
from deltalens.cli.studies.side_effects_table import effects_summary, print_side_effects
from deltalens.trials.interventions.intervention import strength_unit
from deltalens.trials.rates import Rate, Tally
from deltalens.trials.result import (
    CHOSEN,
    RANDOM_SETS,
    Arm,
    Candidate,
    Direction,
    SweepResult,
)
from deltalens.trials.together.latents import named
from deltalens.trials.verdicts.sets import suspect_names
from deltalens.trials.verdicts.words import verdict_sentences

NONE_WITHIN = "none within budget"
NO_VERDICT = (
    "No verdict: this sweep's random latents are not known to be signed by push; steer again, "
    "which samples only what is missing."
)
TITLES: dict[Direction, str] = {"away": "steered away", "toward": "steered toward"}


def print_sweep(result: SweepResult, shown: int = 20) -> None:
    """Print the latents of each ranking, the sets, and what they say in words."""
    if result.intervention != "add":
        print_line(
            f"Intervention: {result.intervention}; strengths: {strength_unit(result.intervention)}"
        )
    for name in suspect_names(result.sets):
        _print_latents(result, name, shown)
    _print_sets(result)
    print_side_effects(result, shown)
    for line in chosen_lines(result):
        print_line(line)
    for line in verdict_lines(result):
        print_line(line)


def _print_latents(result: SweepResult, name: str, shown: int) -> None:
    columns = ["latent"]
    for direction in result.arms:
        columns += [TITLES[direction], "Δ", "inc."]
    rows = [
        [candidate.name, *chain(*(_cells(arm, candidate) for arm in result.arms.values()))]
        for candidate in result.sets[name][:shown]
    ]
    title = (
        f"{name}: share with the behaviour [95 % interval] at the strength chosen;\n"
        "Δ: change in percentage points; inc.: incoherent completions"
    )
    print_table(title, columns, rows)


def _cells(arm: Arm, candidate: Candidate) -> list[str]:
    point = arm.chosen(candidate)
    if point is None:
        return [NONE_WITHIN, "", ""]
    return [
        f"{rate(point.tally.behaviour)} at {point.strength:+.2g}",
        f"{100 * arm.change(candidate):+.0f}",
        f"{point.tally.incoherence.value:.0%}",
    ]


def rate(value: Rate) -> str:
    """A share with its interval, in percent."""
    low, high = value.interval
    return f"{value.value:.0%} [{100 * low:.0f}, {100 * high:.0f}]"


def _print_sets(result: SweepResult) -> None:
    columns, rows = ["set", "n"], [["unsteered", ""]]
    for direction, arm in result.arms.items():
        columns += [direction, "none within", "beyond random"]
        rows[0] += [rate(arm.unsteered.behaviour), "", ""]
    for name, candidates in result.sets.items():
        row = [name, str(len(candidates))]
        for direction in result.arms:
            row += _set_cells(result, direction, name)
        rows.append(row)
    title = (
        "Mean change in percentage points, each latent at its strongest strength within the budget "
        "(a description;\nthe verdict follows); none within: latents without such a strength, "
        "left out"
    )
    print_table(title, columns, rows, left=("set",))


def _set_cells(result: SweepResult, direction: Direction, name: str) -> list[str]:
    mean = f"{100 * result.mean_change(direction, name):+.1f}"
    cells = [mean, str(result.none_within(direction, name) or "")]
    if name in RANDOM_SETS:
        changes = [c for c in result.changes(direction, name) if c == c]
        spread = f"{100 * min(changes):+.0f} … {100 * max(changes):+.0f}" if changes else "–"
        return [*cells, spread]
    return [*cells, f"{result.beyond_band(direction, name)} of {len(result.sets[name])}"]


def verdict_lines(result: SweepResult) -> list[str]:
    """What the sweep proves, set by set, whichever way it went."""
    if not result.verdicts:
        return [NO_VERDICT]
    return [
        line
        for direction, verdict in result.verdicts.items()
        for line in verdict_sentences(direction, verdict)
    ]


def chosen_lines(result: SweepResult) -> list[str]:
    """How latents were chosen greedily, and what that leaves open."""
    chosen = result.settings.get("greedy")
    if not chosen:
        return []
    return [
        *(f"{name}, step by step: {_steps(steps)}" for name, steps in chosen["steps"].items()),
        f"Chosen on {len(chosen['chosen_on'])} prompts and tested on {len(chosen['tested_on'])} "
        "others. A set's p says that what was chosen does more than random groups, not that its "
        f"ranking does: “{CHOSEN}” is what the same choice makes of random latents.",
    ]


def _steps(steps: list[dict[str, Any]]) -> str:
    """The latents that came, each with the change of all so far."""
    return ", ".join(f"{named(*step['latents'][-1])} ({_points(step['change'])})" for step in steps)


def _points(change: float | None) -> str:
    return "not gradable" if change is None else f"{100 * change:+.0f} points"


def sweep_summary(result: SweepResult) -> dict[str, Any]:
    """The same as plain values."""
    return {
        "settings": result.settings,
        "arms": {d: _arm_summary(result, d) for d in result.arms},
        "verdict": verdict_lines(result),
    }


def _arm_summary(result: SweepResult, direction: Direction) -> dict[str, Any]:
    arm = result.arms[direction]
    return {
        "model": arm.model,
        "norm": arm.norm,
        "incoherence_budget": arm.budget,
        "unsteered": {
            **tally_summary(arm.unsteered),
            "side_effects": effects_summary(arm.unsteered_effects),
        },
        "random_band": result.band(direction),
        "verdict": asdict(result.verdicts[direction]) if direction in result.verdicts else None,
        "sets": {
            name: {
                "mean_change": result.mean_change(direction, name),
                "none_within_budget": result.none_within(direction, name),
                "beyond_random": result.beyond_band(direction, name),
                "latents": [_candidate_summary(arm, item) for item in candidates],
            }
            for name, candidates in result.sets.items()
        },
    }


def _candidate_summary(arm: Arm, candidate: Candidate) -> dict[str, Any]:
    """strength, change and all else is null where no strength is within the budget."""
    point = arm.chosen(candidate)
    found = {**asdict(candidate), "within_budget": point is not None}
    found |= {"strength": point and point.strength, "change": arm.change(candidate)}
    if point is None:
        return found
    effects = effects_summary(point.side_effects)
    return {**found, **tally_summary(point.tally), "side_effects": effects}


def tally_summary(tally: Tally) -> dict[str, Any]:
    """Counts, and the behaviour's rate with its interval."""
    return {
        **asdict(tally),
        "rate": tally.behaviour.value,
        "interval": tally.behaviour.interval,
        "incoherence": tally.incoherence.value,
    }
