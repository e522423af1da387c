"""A check of an SAE as it shows itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from deltalens.visible.view import ROWS, Table, View

_COLUMNS = ("name", "explained")


def check_view(found: Any) -> View:
    """A :class:`~deltalens.study.SAECheck`: its warnings first."""
    lines = [f"warning: {line}" for line in found.warnings] or ["nothing looks wrong"]
    lines += _facts(found)
    others = found.alternatives
    rows = [[other.name, f"{other.explained:.4f}"] for other in others[:ROWS]]
    tables = [Table(_COLUMNS, rows, len(others), left=_COLUMNS[:1])] if others else []
    return View(f"SAE checked at {found.site.name}", lines, tables)


def _facts(found: Any) -> Iterator[str]:
    rows, rebuilt = found.rows, found.reconstruction
    yield f"decoder norms {rows.least:.3g} … {rows.largest:.3g}, median {rows.median:.3g}"
    if rebuilt is None:
        return
    yield (
        f"{rebuilt.explained:.4f} of the variance explained, cosine {rebuilt.cosine:.4f}, "
        f"{rebuilt.l0:.1f} active latents of a token, on {rebuilt.tokens:,} tokens"
    )
    if found.alternatives:
        yield f"as loaded {found.compared:.4f} on the tokens of the alternatives:"
