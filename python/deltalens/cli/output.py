"""Tables for people and JSON for machines."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from deltalens.visible import visible, visible_json, visible_lines
from deltalens.visible.values import number as number
from deltalens.visible.values import p_value as p_value
from deltalens.visible.values import tokens as tokens

_GAP, _EDGES = 3, 2  # characters between two columns, and at both ends of a row
_LEAST_TEXT = 8


def print_json(document: Any) -> None:
    """One JSON document on standard output; NaN, which JSON lacks, as null."""
    print(visible_json(json.dumps(_plain(document), indent=2, ensure_ascii=False)))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def print_table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, left: Sequence[str] = ()
) -> None:
    """A table on standard output; columns are right-aligned but those named in ``left``.

    On a narrow terminal the latter are cut short; numbers never are: rows are wider than it then.
    """
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    rows = [list(map(visible, row)) for row in rows]
    widths = [
        max(map(len, (visible(name), *(row[i] for row in rows)))) for i, name in enumerate(columns)
    ]
    fixed = sum(width for name, width in zip(columns, widths, strict=True) if name not in left)
    least = fixed + _GAP * (len(columns) - 1) + _EDGES
    console.width = max(console.width, least + _LEAST_TEXT * len(left))
    room = console.width - least
    table = Table(
        title=escape(visible_lines(title)), title_justify="left", box=SIMPLE_HEAD, pad_edge=False
    )
    for name, width in zip(columns, widths, strict=True):
        if name in left:
            width = min(width, max(_LEAST_TEXT, room // len(left)))
        justify: Literal["left", "right"] = "left" if name in left else "right"
        table.add_column(escape(visible(name)), justify=justify, no_wrap=True, width=width)
    for row in rows:
        table.add_row(*map(escape, row))
    console.print(table)


def print_line(text: str) -> None:
    """A line of plain text on standard output."""
    from rich.console import Console

    Console(highlight=False).print(visible_lines(text), markup=False, soft_wrap=True)


class VisibleLines(logging.Formatter):
    """Messages of which nothing acts on a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """The lines of a record."""
        return visible_lines(super().format(record))


@contextmanager
def log_lines(name: str, *, shown: bool) -> Iterator[None]:
    """What the logger ``name`` and those below it say, as plain lines on standard error."""
    logger = logging.getLogger(name)
    level = logger.level
    handler = logging.StreamHandler() if shown else logging.NullHandler()
    handler.setFormatter(VisibleLines())
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
