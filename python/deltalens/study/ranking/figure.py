"""A ranking as a figure."""

from __future__ import annotations

from typing import Any

from deltalens.study.significance.sentence import LEVEL
from deltalens.visible.figures.style import CURVES, GRAY, INK

SHOWN = 20  # latents

_RAISES, _LOWERS, _UNSURE = (
    ("adding it raises log p(C) over log p(C′)", CURVES[0], "^"),
    ("adding it lowers it", CURVES[1], "v"),
    ("either may be chance", GRAY, "o"),
)


def ranking_figure(result: Any) -> Any:
    """A row for each of the first latents of an :class:`~deltalens.Attribution`: its score with one
    standard error on either side.

    Colour and shape are the sign of push; filled are those that stand out from chance. Every
    point's gid starts with "point-". Returns a matplotlib figure, to be drawn within
    :func:`~deltalens.visible.figures.style.style`.
    """
    from deltalens.visible.figures.shown import ShownFigure

    latents = result.latents[:SHOWN].tolist()
    figure = ShownFigure(figsize=(6.4, 1.2 + 0.22 * len(latents)), layout="constrained")
    axes = figure.subplots()
    axes.axvline(0, color=INK, linewidth=0.6)
    for place, latent in enumerate(latents):
        _point(axes, result, place, latent)
    axes.set_yticks(range(len(latents)), list(map(str, latents)))
    axes.invert_yaxis()
    axes.set_ylabel("latent, first on top")
    axes.set_xlabel(f"score ± standard error; filled: p ≤ {LEVEL:g}")
    axes.ticklabel_format(axis="x", style="sci", scilimits=(-3, 4))
    figure.legend(*_legend(axes), loc="outside upper left", ncols=3, fontsize=8)
    return figure


def _point(axes: Any, result: Any, place: int, latent: int) -> None:
    score, error = float(result.scores[place]), float(result.stderr[place])
    name, colour, shape = _side(result, place)
    axes.plot([score - error, score + error], [place, place], color=colour, linewidth=1.2)
    (point,) = axes.plot(
        *(score, place, shape),
        color=colour,
        fillstyle="full" if float(result.p_value[place]) <= LEVEL else "none",
        markersize=5,
        label=name,
    )
    point.set_gid(f"point-{latent}")


def _side(result: Any, place: int) -> tuple[str, str, str]:
    if bool(result.sign_unsure[place]):
        return _UNSURE
    return _RAISES if float(result.push[place]) > 0 else _LOWERS


def _legend(axes: Any) -> tuple[list[Any], list[str]]:
    """One entry for each colour that there is, in the order above."""
    found = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    names = [name for name, *_ in (_RAISES, _LOWERS, _UNSURE) if name in found]
    return [found[name] for name in names], names
