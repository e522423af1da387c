"""Two studies' shared latents as a figure."""

from __future__ import annotations

from typing import Any

from deltalens.visible.figures.style import CURVES, INK
from deltalens.visible.figures.text import figure_text

NAMED = 12  # latents, those highest in the two rankings

_SAME = ("pushes the same way in both", CURVES[0], "o")
_OTHER = ("pushes the other way in the second", CURVES[1], "s")


def comparison_figure(found: Any) -> Any:
    """A point for each shared latent of a :class:`~deltalens.Comparison`: its rank in the second
    study over its rank in the first, both logarithmic; on the line the two are the same.

    Colour and shape are the sides of push; the first :data:`NAMED` have their numbers beside them.
    Every point's gid starts with "point-". Returns a matplotlib figure, to be drawn within
    :func:`~deltalens.visible.figures.style.style`.
    """
    from matplotlib.ticker import NullFormatter, StrMethodFormatter

    from deltalens.visible.figures.shown import ShownFigure

    figure = ShownFigure(figsize=(4.8, 4.8), layout="constrained")
    axes = figure.subplots()
    last = max(found.k)
    axes.plot([1, last], [1, last], color=INK, linewidth=0.6)
    for place, latent in enumerate(found.shared):
        _point(axes, latent, place < NAMED)
    axes.set_xscale("log")
    axes.set_yscale("log")
    for axis, name, k in zip((axes.xaxis, axes.yaxis), found.names, found.k, strict=True):
        axis.set_label_text(f"rank in {figure_text(name)}, of {k}")
        axis.set_major_formatter(StrMethodFormatter("{x:.0f}"))
        axis.set_minor_formatter(NullFormatter())
    axes.set_title(f"{len(found.shared)} of {found.n_latents} latents are in both lists")
    lines = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    if lines:
        figure.legend(lines.values(), lines.keys(), loc="outside lower left", fontsize=8)
    return figure


def _point(axes: Any, latent: Any, named: bool) -> None:
    name, colour, shape = _SAME if latent.same_push else _OTHER
    (point,) = axes.plot(*latent.ranks, shape, color=colour, markersize=5, label=name)
    point.set_gid(f"point-{latent.latent}")
    if named:
        axes.annotate(
            str(latent.latent), latent.ranks, (4, 4), textcoords="offset points", fontsize=8
        )
