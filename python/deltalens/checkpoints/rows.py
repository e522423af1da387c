"""The rows of a comparison: one for each latent at each checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, fields
from typing import Any

from deltalens.checkpoints.activation import Active
from deltalens.checkpoints.attributed import Attributed
from deltalens.checkpoints.detected import Detected
from deltalens.checkpoints.steered import Steered
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


def rows_of(found: Any) -> Iterator[dict[str, Any]]:
    """Of a :class:`~deltalens.CheckpointComparison`; what is not known is None or left out."""
    for course in found.courses:
        promotes = " ".join(token.strip() for token in course.promotes)
        for checkpoint, state in zip(found.checkpoints, course.states, strict=True):
            yield {"latent": course.latent, "promotes": promotes, **_row(checkpoint, state)}


def _row(checkpoint: Any, state: Any) -> dict[str, Any]:
    row = {"checkpoint": checkpoint.name, "step": checkpoint.step}
    row |= asdict(state.attribution)
    return row | dict(_measured(checkpoint, state))


def _measured(checkpoint: Any, state: Any) -> Iterator[tuple[str, Any]]:
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
