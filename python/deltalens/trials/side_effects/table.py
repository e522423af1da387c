"""Every condition of a sweep as a row of a CSV file."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from deltalens.storage.atomic import write_text
from deltalens.storage.cells import cell
from deltalens.trials.rates import Tally
from deltalens.trials.result import STEERING_DIRECTORY, Arm, Candidate, Curve, SweepResult
from deltalens.trials.side_effects.effects import Estimate, Length, NeutralEffect, SideEffects

SIDE_EFFECTS_FILE = "side_effects.csv"
COLUMNS = (
    "direction", "sets", "latent", "sign", "strength", "chosen",
    "rate", "incoherence", "samples",
    "loss", "loss_low", "loss_high", "rise", "rise_low", "rise_high",
    "changed", "changed_low", "changed_high", "texts", "tokens",
    "length", "length_low", "length_high", "median_length",
    "length_change", "length_change_low", "length_change_high",
    "cut", "completions", "recounted",
)  # fmt: skip


def write_side_effects(run: Path, result: SweepResult) -> None:
    """``steering/side_effects.csv``: for each arm the unsteered model, then every latent at every
    strength; empty cells are not known."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for arm in result.arms.values():
        writer.writerows(_rows(result, arm))
    write_text(run / STEERING_DIRECTORY / SIDE_EFFECTS_FILE, text.getvalue())


def _rows(result: SweepResult, arm: Arm) -> Iterator[list[str]]:
    effects = _effects(arm.unsteered_effects)
    yield [arm.direction, "", "", "", "0", "", *_graded(arm.unsteered), *effects]
    for curve in arm.curves:
        for number, point in enumerate(curve.points):
            yield [
                arm.direction,
                cell("; ".join(_sets(result, curve))),
                cell(Candidate(curve.latent, curve.sign).label),
                str(curve.sign),
                repr(point.strength),
                str(int(number == curve.chosen)),
                *_graded(point.tally),
                *_effects(point.side_effects),
            ]


def _sets(result: SweepResult, curve: Curve) -> list[str]:
    candidate = Candidate(curve.latent, curve.sign)
    return [name for name, candidates in result.sets.items() if candidate in candidates]


def _graded(tally: Tally) -> list[str]:
    return [repr(tally.behaviour.value), repr(tally.incoherence.value), str(tally.samples)]


def _effects(found: SideEffects | None) -> list[str]:
    neutral, length = (None, None) if found is None else (found.neutral, found.length)
    return [*_neutral(neutral), *_length(length)]


def _neutral(found: NeutralEffect | None) -> list[str]:
    if found is None:
        return [""] * 11
    estimates = (found.loss, found.rise, found.changed)
    return [*chain(*map(_estimate, estimates)), str(found.texts), str(found.tokens)]


def _length(found: Length | None) -> list[str]:
    if found is None:
        return [""] * 10
    counts = map(str, (found.cut, found.completions, found.recounted))
    return [*_estimate(found.mean), repr(found.median), *_estimate(found.change), *counts]


def _estimate(found: Estimate | None) -> list[str]:
    if found is None:
        return [""] * 3
    low, high = map(repr, found.interval) if found.interval else ("", "")
    return [repr(found.value), low, high]
