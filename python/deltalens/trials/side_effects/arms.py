"""Side effects put beside what an arm found."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from deltalens.cost.dry_run import Work, begun
from deltalens.cost.total import Cost
from deltalens.trials.conditions import UNSTEERED, Condition
from deltalens.trials.log import Completion
from deltalens.trials.result import Arm, Curve, Direction
from deltalens.trials.side_effects.effects import SideEffects
from deltalens.trials.side_effects.lengths import answer_lengths
from deltalens.trials.side_effects.neutral import neutral_effects
from deltalens.trials.side_effects.reading import NeutralReading

log = logging.getLogger(__name__)


def conditions_of(arm: Arm) -> list[Condition]:
    """Every condition that was tried, but steering with nothing."""
    return [Condition(curve.latent, p.strength) for curve in arm.curves for p in curve.points]


def read_neutral(
    readings: Mapping[Direction, NeutralReading],
    arms: Mapping[Direction, Arm],
    *,
    progress: bool,
) -> None:
    """Read what is missing of the neutral texts, with every condition that was tried."""
    conditions = {direction: conditions_of(arms[direction]) for direction in readings}
    parts = [(reading, conditions[direction]) for direction, reading in readings.items()]
    tokens = sum(-(-reading.tokens(of) // reading.ranks.parts) for reading, of in parts)

    def rehearsal() -> Iterable[object]:
        for reading, of in parts:
            yield from reading.rehearsed(of)

    if parts:
        with begun(log, Work(Cost(forward=tokens), tokens), rehearsal):
            for reading, of in parts:
                reading.complete(of, progress=progress)


def with_side_effects(
    arm: Arm,
    run: Path,
    completions: Iterable[Completion],
    tokenizer: Any,
    max_new_tokens: int,
) -> Arm:
    """The arm with what is known of its conditions: lengths from ``completions``, and of neutral
    texts whatever has been read under ``run``."""
    lengths = answer_lengths(completions, tokenizer, max_new_tokens)
    neutral = neutral_effects(run, arm.direction)

    def of(condition: Condition) -> SideEffects:
        return SideEffects(lengths.get(condition), neutral.get(condition))

    def with_effects(curve: Curve) -> Curve:
        points = [
            replace(p, side_effects=of(Condition(curve.latent, p.strength))) for p in curve.points
        ]
        return replace(curve, points=points)

    return replace(arm, unsteered_effects=of(UNSTEERED), curves=list(map(with_effects, arm.curves)))
