"""What a steering sweep found, as tables and as plain values."""

from __future__ import annotations

from dataclasses import asdict
from itertools import chain
from typing import Any

from deltalens.cli.output import print_line, print_table
from deltalens.trials.rates import Rate, Tally
from deltalens.trials.result import (
    RANDOM_SETS,
    Arm,
    Candidate,
    Direction,
    SweepResult,
)
from deltalens.trials.suspects import suspect_names

TITLES: dict[Direction, str] = {"away": "steered away", "toward": "steered toward"}


def print_sweep(result: SweepResult, shown: int = 20) -> None:
    """Print the latents of each ranking, the sets, and what they say in words."""
    for name in suspect_names(result.sets):
        _print_latents(result, name, shown)
    _print_sets(result)
    for line in verdict(result):
        print_line(line)


def _print_latents(result: SweepResult, name: str, shown: int) -> None:
    columns = ["latent"]
    for direction in result.arms:
        columns += [TITLES[direction], "Δ", "inc."]
    rows = [
        [_signed(candidate), *chain(*(_cells(arm, candidate) for arm in result.arms.values()))]
        for candidate in result.sets[name][:shown]
    ]
    title = (
        f"{name}: share with the behaviour [95 % interval] at the strength chosen;\n"
        "Δ: change in percentage points; inc.: incoherent completions"
    )
    print_table(title, columns, rows)


def _signed(candidate: Candidate) -> str:
    return f"{'+' if candidate.sign > 0 else '−'}{candidate.latent}"


def _cells(arm: Arm, candidate: Candidate) -> list[str]:
    point = arm.chosen(candidate)
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
        columns += [direction, "beyond random"]
        rows[0] += [rate(arm.unsteered.behaviour), ""]
    for name, candidates in result.sets.items():
        row = [name, str(len(candidates))]
        for direction in result.arms:
            row += _set_cells(result, direction, name)
        rows.append(row)
    print_table("Mean change in percentage points", columns, rows, left=("set",))


def _set_cells(result: SweepResult, direction: Direction, name: str) -> list[str]:
    mean = f"{100 * result.mean_change(direction, name):+.1f}"
    if name in RANDOM_SETS:
        changes = [c for c in result.changes(direction, name) if c == c]
        return [mean, f"{100 * min(changes):+.0f} … {100 * max(changes):+.0f}" if changes else "–"]
    beyond = result.beyond_band(direction, name)
    return [mean, f"{beyond} of {len(result.sets[name])}"]


def verdict(result: SweepResult) -> list[str]:
    """What the first latent of the first set did, in words, whichever way it went."""
    name = suspect_names(result.sets)[0]
    first = result.sets[name][0]
    lines = []
    for direction, arm in result.arms.items():
        change, (low, high) = arm.change(first), result.band(direction)
        beyond = change < low if direction == "away" else change > high
        lines.append(
            f"The top latent by {name}, {first.latent}, {TITLES[direction]}: "
            f"{arm.unsteered.behaviour.value:.1%} → {arm.chosen(first).tally.behaviour.value:.1%}, "
            + ("beyond every random latent." if beyond else "no further than random latents do.")
        )
    return lines


def sweep_summary(result: SweepResult) -> dict[str, Any]:
    """The same as plain values."""
    return {
        "settings": result.settings,
        "arms": {d: _arm_summary(result, d) for d in result.arms},
        "verdict": verdict(result),
    }


def _arm_summary(result: SweepResult, direction: Direction) -> dict[str, Any]:
    arm = result.arms[direction]
    return {
        "model": arm.model,
        "norm": arm.norm,
        "incoherence_budget": arm.budget,
        "unsteered": tally_summary(arm.unsteered),
        "random_band": result.band(direction),
        "sets": {
            name: {
                "mean_change": result.mean_change(direction, name),
                "beyond_random": result.beyond_band(direction, name),
                "latents": [_candidate_summary(arm, item) for item in candidates],
            }
            for name, candidates in result.sets.items()
        },
    }


def _candidate_summary(arm: Arm, candidate: Candidate) -> dict[str, Any]:
    point = arm.chosen(candidate)
    return {
        **asdict(candidate),
        "strength": point.strength,
        "change": arm.change(candidate),
        **tally_summary(point.tally),
    }


def tally_summary(tally: Tally) -> dict[str, Any]:
    """Counts, and the behaviour's rate with its interval."""
    return {
        **asdict(tally),
        "rate": tally.behaviour.value,
        "interval": tally.behaviour.interval,
        "incoherence": tally.incoherence.value,
    }
