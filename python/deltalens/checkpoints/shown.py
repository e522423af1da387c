"""A comparison of checkpoints as it shows itself."""

from __future__ import annotations

from typing import Any

from deltalens.visible.values import number
from deltalens.visible.view import ROWS, Table, View

_CHECKPOINTS = 6
_TOKENS = 5


def checkpoints_view(found: Any) -> View:
    """The first latents of a :class:`~deltalens.CheckpointComparison`, by checkpoint."""
    shown = found.checkpoints[:_CHECKPOINTS]
    count = f"{len(found.checkpoints)} checkpoints"
    if len(shown) < len(found.checkpoints):
        count = f"the first {len(shown)} of {count}"
    lines = [f"score (rank) of each latent at {count}", *found.notes]
    names = (f"{at}: {one.name}" for at, one in enumerate(shown, start=1))
    rows = [
        [
            str(course.latent),
            *(_cell(state.attribution) for state in course.states[: len(shown)]),
            " ".join(course.promotes[:_TOKENS]),
        ]
        for course in found.courses[:ROWS]
    ]
    columns = ("latent", *names, "promotes")
    table = Table(columns, rows, len(found.courses), left=columns[-1:])
    return View(f"Latents over checkpoints at {found.site}", lines, [table])


def _cell(one: Any) -> str:
    rank = "" if one.rank is None else f" ({one.rank})"
    return "–" if one.score is None else number(one.score) + rank
