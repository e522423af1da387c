"""A survey as it shows itself, and as rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from deltalens.visible.values import number, p_value, tokens
from deltalens.visible.view import ROWS, Table, View

_COLUMNS = ("behaviour", "site", "SAE", "pairs", "stand out", "first", "score", "p", "promotes")
_KEY = ("behaviour", "site", "sae")


def survey_view(found: Any) -> View:
    """The first studies of a :class:`~deltalens.Survey`, each with its first latent."""
    rows = [_row(key, result) for key, result in list(found.items())[:ROWS]]
    left = ("behaviour", "site", "SAE", "promotes")
    lines = ["stand out: ranked latents with family-wise p ≤ 0.05 in their own study"]
    return View(f"Survey of {len(found)} studies", lines, [Table(_COLUMNS, rows, len(found), left)])


def _row(key: Any, result: Any) -> list[str]:
    behaviour, site, *sae = key
    return [
        *(str(behaviour), str(site), str(sae[0]) if sae else ""),
        *(str(len(result.pairs)), str(result.stand_out), str(int(result.latents[0]))),
        *(number(float(result.scores[0])), p_value(float(result.p_value[0]))),
        tokens(result.lens_of(0).promotes),
    ]


def columns_of(found: Any) -> dict[str, list[Any]]:
    """Every ranked latent of every study, beside the study's key."""
    columns: dict[str, list[Any]] = {}
    for name, values in _named(found):
        columns.setdefault(name, []).extend(values)
    return columns


def _named(found: Any) -> Iterator[tuple[str, list[Any]]]:
    for key, result in found.items():
        table = result.columns()
        whose = dict(zip(_KEY, (*key, None), strict=False))
        yield from ((name, [value] * len(table["rank"])) for name, value in whose.items())
        yield from ((name, list(values)) for name, values in table.items())
