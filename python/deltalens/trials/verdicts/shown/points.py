"""Figure 1: what every latent did, beside random ones."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

from deltalens.trials.verdicts.sets import RANDOM_SETS, SET_NAMES, Direction, suspect_names
from deltalens.trials.verdicts.shown.panels import COLOURS, PANELS
from deltalens.visible.figures.style import GRAY, INK
from deltalens.visible.figures.text import figure_text

_WIDTH = 0.76  # of a column, whose centres are 1 apart


class Mark(NamedTuple):
    """A point of the figure: one candidate of one set in one arm. rank counts from 1."""

    gid: str
    direction: Direction
    group: str
    rank: int
    candidate: Any


def marks(result: Any, direction: Direction, groups: tuple[str, ...]) -> list[Mark]:
    """The points of one column, in rank order; without those that could not be graded or have no
    strength within the budget."""
    listed = [item for group in groups for item in result.sets.get(group, [])]
    found = []
    for rank, candidate in enumerate(listed, start=1):
        if not math.isnan(result.arms[direction].change(candidate)):
            gid = f"point-{direction}-{_column_name(result, groups)}-{rank}"
            found.append(Mark(gid, direction, groups[0], rank, candidate))
    return found


def columns(result: Any) -> list[tuple[str, ...]]:
    """The sets that share a column: every set of suspects has its own, all random ones one."""
    wanted: list[tuple[str, ...]] = [(name,) for name in suspect_names(result.sets)]
    wanted.append(RANDOM_SETS)
    return [groups for groups in wanted if any(result.sets.get(name) for name in groups)]


def all_marks(result: Any) -> Iterator[Mark]:
    """Every point of the figure."""
    for direction in result.arms:
        for groups in columns(result):
            yield from marks(result, direction, groups)


def figure_1(result: Any) -> Any:
    """A panel per model, as the publication's figure: a point per latent by rank in each set.

    y: change of the behaviour's rate in percentage points at each latent's chosen strength, with
    Wilson's 95 % interval of the steered rate; ×: their mean; diamond: a set's mean at the strength
    where all are compared, with its interval; band: from the smallest to the largest change of a
    random latent. Latents without a strength within the budget are counted below. Every point
    is a group whose gid starts with "point-". Returns a matplotlib figure, to be drawn within
    :func:`~deltalens.visible.figures.style.style`.
    """
    from deltalens.visible.figures.shown import ShownFigure

    width = max(4.4, 1.4 * len(columns(result)))
    figure = ShownFigure(figsize=(width * len(result.arms), 3.9), layout="constrained")
    axes = figure.subplots(1, len(result.arms), squeeze=False)[0]
    for panel, (direction, arm) in zip(axes, result.arms.items(), strict=True):
        _panel(panel, result, direction, arm)
    axes[0].set_ylabel("change of the rate, percentage points")
    return figure


def _panel(panel: Any, result: Any, direction: Direction, arm: Any) -> None:
    if (band := result.band(direction)) is not None:
        panel.axhspan(100 * band[0], 100 * band[1], color=GRAY, alpha=0.25, linewidth=0)
    panel.axhline(0, color=INK, linewidth=0.6)
    panel.set_title(_title(result, direction, arm))
    shown = columns(result)
    for place, groups in enumerate(shown):
        _column(panel, arm, place, marks(result, direction, groups))
        _compared(panel, result, direction, place, groups)
    panel.set_xticks(range(len(shown)), [_label(result, direction, groups) for groups in shown])
    panel.tick_params(axis="x", length=0)
    panel.set_xlim(-0.55, len(shown) - 0.45)
    panel.margins(y=0.08)


def _title(result: Any, direction: Direction, arm: Any) -> str:
    title = f"{PANELS[direction]}\nunsteered: {arm.unsteered.behaviour.value:.0%}"
    verdict = result.verdicts.get(direction)
    if verdict is None or verdict.strength is None:
        return title
    return f"{title}; diamonds: means at strength {verdict.strength:g}"


def _compared(
    panel: Any, result: Any, direction: Direction, place: int, groups: tuple[str, ...]
) -> None:
    """Means and intervals of the sets of one column, as the verdict has them."""
    verdict = result.verdicts.get(direction)
    if verdict is None:
        return
    means = {name: found.suspects for name, found in verdict.sets.items()} | verdict.controls
    for number, name in enumerate(name for name in groups if name in means):
        found, x = means[name], place + _WIDTH / 2 + 0.05 * (number + 1)
        if found.mean is None:
            continue
        if found.interval is not None:
            panel.plot([x, x], [100 * end for end in found.interval], color=INK, linewidth=1.2)
        panel.plot(x, 100 * found.mean, "D", color=INK, markersize=4)


def _column(panel: Any, arm: Any, place: int, column: list[Mark]) -> None:
    if not column:
        return
    random = column[0].group in RANDOM_SETS
    colour = GRAY if random else COLOURS.get(column[0].group, INK)
    changes = [100 * arm.change(mark.candidate) for mark in column]
    for mark, change in zip(column, changes, strict=True):
        x = _x(place, mark.rank, column[-1].rank)
        if not random:
            panel.plot([x, x], _whisker(arm, mark.candidate), color=colour, alpha=0.3, linewidth=1)
        (point,) = panel.plot(
            x, change, "o", color=colour, markersize=3 if random else 5, markeredgewidth=0
        )
        point.set_gid(mark.gid)
    mean = math.fsum(changes) / len(changes)
    panel.plot(place, mean, "x", color=INK, markersize=9, markeredgewidth=2.2, zorder=4)
    if place == 0 and column[0].rank == 1 and not random:
        _name_first(panel, column[0], (_x(place, 1, column[-1].rank), changes[0]))


def _name_first(panel: Any, mark: Mark, at: tuple[float, float]) -> None:
    """The first latent's number on the side that steering is to go to."""
    below = mark.direction == "away"
    panel.annotate(
        mark.candidate.label,
        at,
        xytext=(0, -6 if below else 6),
        textcoords="offset points",
        ha="center",
        va="top" if below else "bottom",
        fontsize=8,
    )


def _whisker(arm: Any, candidate: Any) -> list[float]:
    unsteered = arm.unsteered.behaviour.value
    point = arm.chosen(candidate)
    assert point is not None  # or there were no mark
    return [100 * (end - unsteered) for end in point.tally.behaviour.interval]


def _x(place: int, rank: int, last: int) -> float:
    """Where a rank stands within a column, best first."""
    return place + _WIDTH * ((rank - 0.5) / last - 0.5)


def _label(result: Any, direction: Direction, groups: tuple[str, ...]) -> str:
    count = sum(len(result.sets.get(name, [])) for name in groups)
    without = sum(result.none_within(direction, name) for name in groups)
    name = "random latents" if groups == RANDOM_SETS else figure_text(groups[0])
    return f"{name}\n({count})" if not without else f"{name}\n({count}, {without} none within)"


def _column_name(result: Any, groups: tuple[str, ...]) -> str:
    """Of letters that an id may hold, and no other column's."""
    if groups == RANDOM_SETS:
        return "random"
    known = {name: ranking for ranking, name in SET_NAMES.items()}
    return known.get(groups[0], f"set{columns(result).index(groups) + 1}")
