"""A figure that shows itself in notebooks."""

from __future__ import annotations

from matplotlib.figure import Figure

from deltalens.visible.figures.style import inline, style, svg_of


class ShownFigure(Figure):
    """matplotlib's own, which can be changed and saved as any other.

    In a notebook it is SVG in the page's own colour of text, dark or light, and no window opens.
    """

    def _repr_html_(self) -> str:
        with style("shown"):
            svg = inline(svg_of(self))
        return svg.replace("<svg ", '<svg style="max-width:100%;height:auto" ', 1)
