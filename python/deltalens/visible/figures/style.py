"""How figures look, and how they become SVG."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

INK = "#1f2933"
GRAY = "#8a939e"
# Of Okabe and Ito's palette, told apart by colour-blind readers.
CURVES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00")
MARKERS = ("o", "s", "^", "D", "v")  # of the same lines, for readers and printers without colour

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


def svg_of(figure: Any) -> str:
    """The figure as an SVG document, drawn within :func:`style`.

    Its bytes depend on what is drawn alone. Ink is ``currentColor``, dark or light as the reader
    prefers.
    """
    stream = io.StringIO()
    with warnings.catch_warnings():
        # Letters stay text; the reader's fonts draw what the one that is measured with lacks.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    return _clean(stream.getvalue())


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
