"""A comparison of two studies as it shows itself, and as columns."""

from __future__ import annotations

import math
from typing import Any

from deltalens.visible.values import number, p_value
from deltalens.visible.view import ROWS, Table, View

_COLUMNS = ("latent", "rank a", "rank b", "score a", "score b", "push a", "push b")
_SPLIT = {"ranks": "rank", "scores": "score", "pushes": "push"}


def comparison_view(found: Any) -> View:
    """The first latents that a :class:`~deltalens.Comparison`'s studies share."""
    names, counts = found.names, [f"{k:,}" for k in found.k]
    lines = [
        f"a: {names[0]}, model {found.models[0]}, {counts[0]} latents",
        f"b: {names[1]}, model {found.models[1]}, {counts[1]} latents",
        f"{len(found.shared)} latents in both; by chance {found.expected:.2g}, as many or more "
        f"with probability {p_value(found.probability)}",
        f"first latents: {found.top[0]} and {found.top[1]}"
        + ("" if math.isnan(found.correlation) else f"; rank correlation {found.correlation:+.2f}"),
    ]
    if found.differences:
        lines.append(f"differ in {', '.join(found.differences)}")
    rows = [
        [
            str(item.latent),
            *map(str, item.ranks),
            *map(number, (*item.scores, *item.pushes)),
        ]
        for item in found.shared[:ROWS]
    ]
    return View("Two studies compared", lines, [Table(_COLUMNS, rows, len(found.shared))])


def shared_columns(found: Any) -> dict[str, list[Any]]:
    """``shared`` of the JSON; of its two values each, that of the first study ends in _a."""
    columns: dict[str, list[Any]] = {"latent": [item.latent for item in found.shared]}
    for field, name in _SPLIT.items():
        for side, letter in enumerate("ab"):
            columns[f"{name}_{letter}"] = [getattr(item, field)[side] for item in found.shared]
    return columns
