"""The comparison as CSV: a row for each latent at each checkpoint."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import asdict, fields
from typing import Any

from deltalens.checkpoints.activation import Active
from deltalens.checkpoints.attributed import Attributed
from deltalens.checkpoints.detected import Detected
from deltalens.checkpoints.result import Checkpoint, CheckpointComparison, State
from deltalens.checkpoints.steered import Steered
from deltalens.storage.cells import cell
from deltalens.trials.result import SIGNS

_ATTRIBUTED = tuple(field.name for field in fields(Attributed))
_ACTIVE = tuple(field.name for field in fields(Active))
_DETECTED = tuple(field.name for field in fields(Detected))
_STEERED = ("strength", *(field.name for field in fields(Steered)))
COLUMNS = (
    "latent",
    "checkpoint",
    "step",
    *_ATTRIBUTED,
    *(f"activation_{name}" for name in _ACTIVE),
    *(f"{direction}_{name}" for direction in SIGNS for name in _STEERED),
    *(f"detection_{name}" for name in _DETECTED),
    "promotes",
)


def as_csv(found: CheckpointComparison) -> str:
    """The table's text; cells of what is not known are empty, and spreadsheets compute nothing."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for course in found.courses:
        promotes = cell(" ".join(token.strip() for token in course.promotes))
        for checkpoint, state in zip(found.checkpoints, course.states, strict=True):
            row = {"latent": course.latent, "promotes": promotes, **_row(checkpoint, state)}
            writer.writerow({name: _plain(value) for name, value in row.items()})
    return text.getvalue()


def _row(checkpoint: Checkpoint, state: State) -> dict[str, Any]:
    row = {"checkpoint": cell(checkpoint.name), "step": checkpoint.step}
    row |= asdict(state.attribution)
    return row | dict(_measured(checkpoint, state))


def _measured(checkpoint: Checkpoint, state: State) -> Iterator[tuple[str, Any]]:
    if state.activation is not None:
        for name, value in asdict(state.activation).items():
            yield f"activation_{name}", value
    for direction, effect in state.steering.items():
        yield f"{direction}_strength", checkpoint.arms[direction].strength
        for name, value in asdict(effect).items():
            yield f"{direction}_{name}", value
    if state.detection is not None:
        for name, value in asdict(state.detection).items():
            yield f"detection_{name}", value


def _plain(value: Any) -> Any:
    """Numbers as the shortest text that reads back as the same."""
    return "" if value is None else repr(value) if isinstance(value, float) else value
