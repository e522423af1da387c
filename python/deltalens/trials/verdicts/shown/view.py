"""A sweep as it shows itself, and as rows."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, fields
from typing import Any

from deltalens.trials.rates import Tally
from deltalens.trials.together.latents import named
from deltalens.trials.verdicts.words import verdict_sentences
from deltalens.visible.view import ROWS, Table, View

COLUMNS = (
    "direction",
    "sets",
    "latent",
    "sign",
    "strength",
    "chosen",
    *(field.name for field in fields(Tally)),
    "rate",
    "incoherence",
)
_EACH = ("rate", "points", "strength")


def sweep_view(result: Any) -> View:
    """What a :class:`~deltalens.SweepResult` proves, and its first candidates."""
    lines = [
        *(
            f"{direction}: {arm.model}, unsteered {arm.unsteered.behaviour}"
            for direction, arm in result.arms.items()
        ),
        *(
            line
            for direction, verdict in result.verdicts.items()
            for line in verdict_sentences(direction, verdict)
        ),
    ]
    listed = [(name, item) for name, items in result.sets.items() for item in items]
    rows = [
        [name, item.name, *(cell for arm in result.arms.values() for cell in _cells(arm, item))]
        for name, item in listed[:ROWS]
    ]
    columns = ("set", "latent", *(f"{way}: {what}" for way in result.arms for what in _EACH))
    table = Table(columns, rows, len(listed), left=("set",))
    return View(f"Steering: {result.intervention}", lines or ["no arm"], [table])


def _cells(arm: Any, candidate: Any) -> list[str]:
    point, change = arm.chosen(candidate), arm.change(candidate)
    if point is None:
        return ["none within budget", "–", "–"]
    points = "–" if math.isnan(change) else f"{100 * change:+.0f}"
    return [str(point.tally.behaviour), points, f"{point.strength:+.2g}"]


def points_of(result: Any) -> Iterator[dict[str, Any]]:
    """Every candidate at every strength, with the names that the sweep's JSON has."""
    for direction, arm in result.arms.items():
        for curve in arm.curves:
            whose = {
                "direction": direction,
                "sets": _sets(result, curve),
                "latent": _latent(curve),
                "sign": curve.sign,
            }
            for at, point in enumerate(curve.points):
                yield {
                    **whose,
                    "strength": point.strength,
                    "chosen": at == curve.chosen,
                    **asdict(point.tally),
                    "rate": point.tally.behaviour.value,
                    "incoherence": point.tally.incoherence.value,
                }


def _sets(result: Any, curve: Any) -> tuple[str, ...]:
    """Those that the curve's candidate is in."""
    key = curve.latent, curve.sign
    return tuple(
        name
        for name, items in result.sets.items()
        if any((item.latent, item.sign) == key for item in items)
    )


def _latent(curve: Any) -> int | str:
    return curve.latent if isinstance(curve.latent, int) else named(curve.latent, curve.sign)
