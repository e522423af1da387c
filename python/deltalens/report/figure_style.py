"""How figures look, and how they become SVG and PNG."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from deltalens.storage.atomic import complete_file, write_text
from deltalens.trials.result import (
    ACTIVATION,
    ATTRIBUTION,
    COSINE,
    GRADIENT,
    PRESENT,
    PUSH,
    Direction,
)

FIGURE_DIRECTORY = "figures"
INK = "#1f2933"
GRAY = "#8a939e"
# Okabe and Ito's palette, told apart by colour-blind readers.
COLOURS = {
    ATTRIBUTION: "#0072b2",
    ACTIVATION: "#d55e00",
    PUSH: "#009e73",
    PRESENT: "#56b4e9",
    GRADIENT: "#cc79a7",
    COSINE: "#e69f00",
}
CURVES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00")
PANELS: dict[Direction, str] = {
    "away": "Studied model, steered away",
    "toward": "Reference model, steered toward",
}

_DPI = 160
_STYLE = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.0,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 10.0,
    "axes.titlelocation": "left",
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "svg.fonttype": "none",
}
_KEPT_IDS = ("point-", "curve-")
_THEME = (
    "*{stroke-linejoin: round; stroke-linecap: butt}"
    f"svg{{color: {INK}}}"
    "@media (prefers-color-scheme: dark) {svg{color: #d9dee5}}"
)


@contextmanager
def style(name: str) -> Iterator[Any]:
    """matplotlib with this look and no user's, for drawing and saving the figure ``name``.

    The settings there were come back.
    """
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        look: Any = {**_STYLE, "svg.hashsalt": name}
        matplotlib.rcParams.update(look)
        yield matplotlib


def save_figure(directory: Path, name: str, draw: Callable[[], Any]) -> str:
    """Draw, write ``name``.svg and ``name``.png, and return the SVG's text.

    The files' bytes depend on what is drawn alone. In the SVG ink is ``currentColor``, dark or
    light as the reader prefers.
    """
    with style(name):
        figure, stream = draw(), io.StringIO()
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
        svg = _clean(stream.getvalue())
        with complete_file(directory / f"{name}.png") as temporary:
            figure.savefig(
                temporary, format="png", dpi=_DPI, facecolor="white", metadata={"Software": None}
            )
    write_text(directory / f"{name}.svg", svg)
    return svg


def inline(svg: str) -> str:
    """The ``<svg>`` element alone, to stand in a page that has a style of its own."""
    element = svg[svg.index("<svg") :]
    return re.sub(r"\s*<style.*?</style>", "", element, flags=re.DOTALL)


def _clean(svg: str) -> str:
    """Without matplotlib's description and ids that nothing refers to, and themed."""
    svg = re.sub(r"\s*<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"\s*<!DOCTYPE.*?>", "", svg, count=1, flags=re.DOTALL)
    used = set(re.findall(r"#([\w.-]+)", svg))
    svg = re.sub(r' id="([^"]*)"', lambda found: _kept(found, used), svg)
    svg = svg.replace("*{stroke-linejoin: round; stroke-linecap: butt}", _THEME)
    return svg.replace(INK, "currentColor", svg.count(INK)).replace(
        "svg{color: currentColor}", f"svg{{color: {INK}}}"
    )


def _kept(found: re.Match[str], used: set[str]) -> str:
    name = found[1]
    return found[0] if name in used or name.startswith(_KEPT_IDS) else ""
