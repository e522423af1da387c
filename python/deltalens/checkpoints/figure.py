"""Latents over the checkpoints of a training run, a panel for each quantity."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from deltalens.checkpoints.course import Checkpoint, Course, State
from deltalens.trials.result import Direction
from deltalens.trials.verdicts.student import t_quantile
from deltalens.visible.figures.style import CURVES, INK, MARKERS
from deltalens.visible.figures.text import figure_text

_COLUMNS = 3
_LEVEL = 0.95
_CHANCE = {"detection": 0.5}  # elsewhere 0
_LONGEST = 16  # characters of a name below an axis

Point = tuple[float, float, float]
"""A value and the ends of its interval; NaN where it is not known."""

_NOTHING = (math.nan, math.nan, math.nan)


class Panel(NamedTuple):
    """One quantity: how it is read of a state, and how its lines are drawn."""

    name: str
    title: str
    label: str
    read: Callable[[Checkpoint, State], Point]
    dashed: Callable[[Checkpoint, State], Point] | None = None


def checkpoints_figure(found: Any) -> Any:
    """A panel for each quantity that any checkpoint has (at least one for the score), with a line
    for each of the first latents.

    Bars are 95 % intervals; a gap is a checkpoint that does not say, a ring on the rank's lower
    edge one whose ranking does not hold the latent. x is the step where names tell it. Every
    line's gid starts with "curve-". Returns a matplotlib figure, to be drawn within
    :func:`~deltalens.visible.figures.style.style`.
    """
    from deltalens.visible.figures.shown import ShownFigure

    shown = found.courses[: len(CURVES)]
    every = list(_panels(found))
    panels = [panel for panel in every if _has_any(panel, found, shown)] or every[:1]
    columns = min(_COLUMNS, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = ShownFigure(figsize=(3.6 * columns + 1, 2.7 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flatten().tolist()
    for axis, panel in zip(axes, panels, strict=False):
        _draw(axis, panel, found, shown)
    for axis in axes[len(panels) :]:
        axis.remove()
    few = (
        "" if len(shown) == len(found.courses) else f"\nfirst {len(shown)} of {len(found.courses)}"
    )
    lines = axes[0].get_legend_handles_labels()
    figure.legend(*lines, title=f"latent{few}", loc="outside right center")
    return figure


def _panels(found: Any) -> Iterator[Panel]:
    yield Panel("score", "Score", "Δ-attribution", _score)
    yield Panel("rank", "Rank", "rank, 1 on top", _rank)
    yield Panel("push", "Push", "push", _push)
    models = any(one.activation and one.activation.against for one in found.checkpoints)
    label = "this model; dashed: the other" if models else "with it; dashed: without"
    yield Panel("activation", "Mean activation", label, _mean, _mean_against)
    for direction in ("away", "toward"):
        title = f"Steered {direction}"
        yield Panel(direction, title, "change, percentage points", _steering(direction))
    yield Panel("detection", "Detection", "AUC, held-out completions", _detection)


def _score(checkpoint: Checkpoint, state: State) -> Point:
    values = state.attribution
    return _over_pairs(values.score, values.stderr, checkpoint.pairs)


def _push(checkpoint: Checkpoint, state: State) -> Point:
    values = state.attribution
    return _over_pairs(values.push, values.push_stderr, checkpoint.pairs)


def _rank(checkpoint: Checkpoint, state: State) -> Point:
    values = state.attribution
    if values.rank is None:
        return _NOTHING
    low = values.rank if values.rank_low is None else values.rank_low
    high = values.rank if values.rank_high is None else values.rank_high
    return values.rank, low, high


def _mean(checkpoint: Checkpoint, state: State) -> Point:
    return _alone(None if state.activation is None else state.activation.mean)


def _mean_against(checkpoint: Checkpoint, state: State) -> Point:
    return _alone(None if state.activation is None else state.activation.mean_against)


def _steering(direction: Direction) -> Callable[[Checkpoint, State], Point]:
    def read(checkpoint: Checkpoint, state: State) -> Point:
        effect = state.steering.get(direction)
        if effect is None:
            return _NOTHING
        return 100 * effect.change, 100 * effect.low, 100 * effect.high

    return read


def _detection(checkpoint: Checkpoint, state: State) -> Point:
    found = state.detection
    if found is None:
        return _NOTHING
    low, high = (found.auc if end is None else end for end in (found.low, found.high))
    return found.auc, low, high


def _alone(value: float | None) -> Point:
    return _NOTHING if value is None else (value, value, value)


def _over_pairs(value: float | None, stderr: float | None, pairs: int) -> Point:
    """A mean over pairs with Student's interval."""
    if value is None or stderr is None:
        return _alone(value)
    half = t_quantile(_LEVEL, pairs - 1) * stderr
    return value, value - half, value + half


def _has_any(panel: Panel, found: Any, shown: Sequence[Course]) -> bool:
    return any(
        not math.isnan(panel.read(checkpoint, state)[0])
        for course in shown
        for checkpoint, state in zip(found.checkpoints, course.states, strict=True)
    )


def _draw(axis: Any, panel: Panel, found: Any, shown: Sequence[Course]) -> None:
    axis.set_title(panel.title)
    axis.set_ylabel(panel.label)
    x = _positions(axis, found)
    if panel.name == "rank":
        _rank_axis(axis, found, shown)
    else:
        axis.ticklabel_format(axis="y", style="sci", scilimits=(-3, 4))
    if panel.name not in ("rank", "activation"):
        axis.axhline(_CHANCE.get(panel.name, 0), color=INK, linewidth=0.6)
    for number, course in enumerate(shown):
        look = {"color": CURVES[number], "marker": MARKERS[number]}
        gid = f"curve-{panel.name}-{course.latent}"
        _line(axis, x, _points(panel.read, found, course), look, gid, str(course.latent))
        if panel.dashed is not None:
            look |= {"linestyle": "--", "markerfacecolor": "none"}
            _line(axis, x, _points(panel.dashed, found, course), look, f"{gid}-against", None)


def _points(read: Callable[[Checkpoint, State], Point], found: Any, course: Course) -> list[Point]:
    return [read(*each) for each in zip(found.checkpoints, course.states, strict=True)]


def _line(
    axis: Any, x: Sequence[float], points: Sequence[Point], look: Any, gid: str, label: str | None
) -> None:
    values, lows, highs = zip(*points, strict=True)
    (line,) = axis.plot(x, values, markersize=4, linewidth=1.4, label=label, **look)
    line.set_gid(gid)
    axis.vlines(x, lows, highs, color=look["color"], linewidth=0.9, alpha=0.6)


def _rank_axis(axis: Any, found: Any, shown: Sequence[Course]) -> None:
    """Logarithmic, the first rank on top; rings on its edge for what is not ranked."""
    from matplotlib.ticker import NullFormatter, StrMethodFormatter

    axis.set_yscale("log")
    axis.yaxis.set_major_formatter(StrMethodFormatter("{x:.0f}"))
    axis.yaxis.set_minor_formatter(NullFormatter())
    axis.invert_yaxis()
    x = _positions(axis, found)
    for number, course in enumerate(shown):
        places = [
            at for at, state in zip(x, course.states, strict=True) if state.attribution.rank is None
        ]
        axis.plot(
            places,
            [0.02 * (number + 1)] * len(places),
            linestyle="none",
            marker=MARKERS[number],
            color=CURVES[number],
            fillstyle="none",
            markersize=4,
            transform=axis.get_xaxis_transform(),
        )


def _positions(axis: Any, found: Any) -> list[float]:
    """Where checkpoints stand on x: at their steps, or one after the other under their names."""
    steps = [one.step for one in found.checkpoints if one.step is not None]
    if len(steps) == len(found.checkpoints):
        axis.set_xlabel("step")
        return steps
    places = [float(at) for at in range(len(found.checkpoints))]
    axis.set_xticks(places, [figure_text(one.name, _LONGEST) for one in found.checkpoints])
    axis.margins(x=0.1)
    return places
