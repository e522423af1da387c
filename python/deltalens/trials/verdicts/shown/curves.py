"""Figure 2: the top latents over all strengths, with the share of incoherent completions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from deltalens.errors import InputError
from deltalens.trials.interventions.intervention import strength_unit
from deltalens.trials.rates import Rate, Tally
from deltalens.trials.verdicts.sets import RANDOM_SETS, suspect_names
from deltalens.trials.verdicts.shown.panels import PANELS
from deltalens.visible.figures.style import CURVES, GRAY, INK, MARKERS

_Measure = Callable[[Tally], Rate]


def figure_2(result: Any) -> Any:
    """Two rows, a column per model: the behaviour's rate over the strength of steering, and below
    it the incoherent share of first samples with its budget.

    Lines are the first latents of the first set, a ring marks the chosen strength where one is
    within the budget; the band is the range of random latents at each strength. Every line's gid
    starts with "curve-". Returns a matplotlib figure, to be drawn within
    :func:`~deltalens.visible.figures.style.style`; raises :class:`InputError` where no set holds
    suspects.
    """
    from deltalens.visible.figures.shown import ShownFigure

    if not suspect_names(result.sets):
        raise InputError("the sweep has no set of suspects, whose curves the figure would show")
    figure = ShownFigure(figsize=(4.4 * len(result.arms), 4.8), layout="constrained")
    grid = figure.subplots(
        2, len(result.arms), squeeze=False, sharex=True, gridspec_kw={"height_ratios": [3, 2]}
    )
    for upper, lower, arm in zip(*grid, result.arms.values(), strict=True):
        upper.set_title(PANELS[arm.direction])
        _curves(upper, result, arm, "behaviour")
        _curves(lower, result, arm, "incoherence")
        lower.axhline(100 * arm.budget, color=INK, linewidth=0.8, linestyle="--", gid="budget")
        lower.set_xlabel(strength_unit(result.intervention))
    grid[0][0].set_ylabel("behaviour, %")
    grid[1][0].set_ylabel("incoherent, %")
    lines = grid[0][-1].get_legend_handles_labels()
    figure.legend(*lines, title="latent", loc="outside right center")
    return figure


def _curves(axes: Any, result: Any, arm: Any, name: str) -> None:
    measure: _Measure = lambda tally: getattr(tally, name)  # noqa: E731
    band = list(_band(result, arm, measure))
    strengths, lows, highs = zip(*band, strict=True)
    axes.fill_between(strengths, lows, highs, color=GRAY, alpha=0.25, linewidth=0)
    top = result.sets[suspect_names(result.sets)[0]][: len(CURVES)]
    for candidate, colour, marker in zip(top, CURVES, MARKERS, strict=False):
        curve = arm.curve(candidate)
        shares = [100 * measure(arm.unsteered).value]
        shares += [100 * measure(point.tally).value for point in curve.points]
        x = [0.0, *(abs(point.strength) for point in curve.points)]
        axes.plot(
            *(x, shares, "-"),
            color=colour,
            marker=marker,
            markersize=4,
            linewidth=1.4,
            label=candidate.label,
            gid=f"curve-{arm.direction}-{name}-{_id(candidate)}",
        )
        if curve.chosen is not None:
            at = curve.chosen + 1
            axes.plot(x[at], shares[at], "o", color=colour, markersize=8, fillstyle="none")
    axes.margins(y=0.08)
    axes.set_xlim(left=0)


def _id(candidate: Any) -> str:
    """Of what an id may hold."""
    return "-".join(str(latent) for latent, _ in candidate.members)


def _band(result: Any, arm: Any, measure: _Measure) -> Iterator[tuple[float, float, float]]:
    """(strength, smallest, largest share in %) over random latents, from strength 0 on."""
    shares: dict[float, list[float]] = {0.0: [100 * measure(arm.unsteered).value]}
    for name in RANDOM_SETS:
        for candidate in result.sets.get(name, []):
            for point in arm.curve(candidate).points:
                share = 100 * measure(point.tally).value
                shares.setdefault(abs(point.strength), []).append(share)
    for strength, values in sorted(shares.items()):
        known = [value for value in values if value == value] or [float("nan")]
        yield strength, min(known), max(known)
