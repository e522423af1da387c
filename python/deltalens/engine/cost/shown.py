"""A plan as it shows itself, and as columns."""

from __future__ import annotations

from typing import Any

from deltalens.visible.view import ROWS, Table, View

COLUMNS = ("form", "impl", "tile_rows", "topk", "flop", "bytes", "seconds", "memory")
_SHOWN = ("form", "impl", "top-k", "GFLOP", "GB moved", "seconds", "MiB")


def plan_view(chosen: Any) -> View:
    """The cheapest ways of a scan, and which of them was chosen."""
    rows = [
        [
            cost.form + " ←" * (cost is chosen.cost),
            cost.impl,
            cost.topk,
            f"{cost.flop / 1e9:,.0f}",
            f"{cost.bytes / 1e9:,.2f}",
            f"{cost.seconds:,.3f}",
            f"{cost.memory / 2**20:,.0f}",
        ]
        for cost in chosen.costs[:ROWS]
    ]
    title = (
        f"{chosen.form} form, impl {chosen.impl}, tiles of {chosen.tile_rows} latents, "
        f"top-k {chosen.topk}"
    )
    return View(title, (), [Table(_SHOWN, rows, len(chosen.costs), left=("form",))])
