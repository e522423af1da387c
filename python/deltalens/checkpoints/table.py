"""The comparison as CSV: a row for each latent at each checkpoint."""

from __future__ import annotations

import csv
import io
from typing import Any

from deltalens.checkpoints.result import CheckpointComparison
from deltalens.checkpoints.rows import COLUMNS, rows_of
from deltalens.storage.cells import cell

_TEXTS = ("checkpoint", "promotes")


def as_csv(found: CheckpointComparison) -> str:
    """The table's text; cells of what is not known are empty, and spreadsheets compute nothing."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in rows_of(found):
        safe = {name: cell(row[name]) for name in _TEXTS}
        writer.writerow({name: _plain(value) for name, value in {**row, **safe}.items()})
    return text.getvalue()


def _plain(value: Any) -> Any:
    """Numbers as the shortest text that reads back as the same."""
    return "" if value is None else repr(value) if isinstance(value, float) else value
