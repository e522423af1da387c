"""Text in a CSV file that spreadsheets show and never compute."""

from __future__ import annotations

from deltalens.visible import visible

FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠")
"""What spreadsheets take for the start of a formula."""


def cell(text: str) -> str:
    """``text`` for a cell, visible; with an apostrophe in front where it begins like a formula.

    Text that begins with an apostrophe gets another one, so that :func:`cell_text` undoes both.
    """
    shown = visible(text)
    return f"'{shown}" if shown.lstrip().startswith((*FORMULA, "'")) else shown


def cell_text(cell: str) -> str:
    """The visible text that a cell was written for."""
    return cell.removeprefix("'")
