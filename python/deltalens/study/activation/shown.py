"""A Δ-activation as it shows itself."""

from __future__ import annotations

from typing import Any

from deltalens.visible.values import number
from deltalens.visible.view import ROWS, Table, View

_COLUMNS = ("rank", "latent", "difference", "stderr", "mean", "against")


def difference_view(found: Any) -> View:
    """The first latents of an :class:`~deltalens.ActivationDifference`."""
    names = ("difference", "stderr", "mean", "mean_against")
    rows = [
        [str(row["rank"]), str(row["latent"]), *(number(row[name]) for name in names)]
        for row in found.rows()[:ROWS]
    ]
    lines = [f"means over the tokens of {found.prompts:,} prompts; against: the other side's"]
    return View("Δ-activation", lines, [Table(_COLUMNS, rows, len(found.latents))])
