"""A detection as it shows itself."""

from __future__ import annotations

from typing import Any

from deltalens.visible.view import ROWS, Table, View

_COLUMNS = ("rank", "latent", "tokens", "over", "AUC")


def detection_view(found: Any) -> View:
    """The first rows of a :class:`~deltalens.Detection`."""
    about = found.metadata
    lines = [
        f"{about['shown']:,} completions with the behaviour and {about['absent']:,} without it, "
        f"to {about['prompts']:,} prompts; of a latent its {about['value']} is scored"
    ]
    rows = [
        [
            "" if row.rank is None else str(row.rank),
            row.detector if row.latent is None else str(row.latent),
            *(row.tokens, row.over, auc_text(row)),
        ]
        for row in found.rows[:ROWS]
    ]
    table = Table(_COLUMNS, rows, len(found.rows), left=("tokens", "over"))
    return View("How well latents tell the behaviour apart on held-out texts", lines, [table])


def auc_text(row: Any) -> str:
    """The value of a :class:`~deltalens.study.detection.result.Told` with its interval."""
    if row.low != row.low:
        return f"{row.auc:.2f}"
    return f"{row.auc:.2f} [{row.low:.2f}, {row.high:.2f}]"
