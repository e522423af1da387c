"""Figures as files of a directory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from deltalens.storage.atomic import complete_file, write_text
from deltalens.visible.figures.style import style, svg_of

FIGURE_DIRECTORY = "figures"

_DPI = 160


def save_figure(directory: Path, name: str, draw: Callable[[], Any]) -> str:
    """Draw, write ``name``.svg and ``name``.png, and return the SVG's text.

    The files' bytes depend on what is drawn alone.
    """
    with style(name):
        figure = draw()
        svg = svg_of(figure)
        with complete_file(directory / f"{name}.png") as temporary:
            figure.savefig(
                temporary, format="png", dpi=_DPI, facecolor="white", metadata={"Software": None}
            )
    write_text(directory / f"{name}.svg", svg)
    return svg
