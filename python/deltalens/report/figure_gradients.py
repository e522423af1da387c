"""First-order values by every kind of gradients, beside exact ablation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from deltalens.study.ablation.providers import Estimates, compare_gradients
from deltalens.visible.figures.style import CURVES, GRAY, INK


def gradients_figure(estimates: Sequence[Estimates], exact: Tensor, top: int) -> Any:
    """A panel per kind: a point per latent, its mean over pairs by the kind and by ablation.

    exact [pairs, latents]: the first ``top`` latents are a ranking's, the others random. The line
    is where both are equal. Returns a matplotlib figure, to be drawn within
    :func:`~deltalens.visible.figures.style.style`.
    """
    from matplotlib.figure import Figure

    shown = [each for each in estimates if each.values is not None]
    figure = Figure(figsize=(2.6 * len(shown), 2.9), layout="constrained")
    panels = figure.subplots(1, len(shown), squeeze=False, sharey=True)[0]
    for panel, each in zip(panels, shown, strict=True):
        _panel(panel, each, exact, top)
    panels[0].set_ylabel("exact ablation")
    return figure


def _panel(panel: Any, estimates: Estimates, exact: Tensor, top: int) -> None:
    assert estimates.values is not None
    x, y = estimates.values.mean(0).tolist(), exact.mean(0).tolist()
    panel.axline((0, 0), slope=1, color=INK, linewidth=0.6)
    panel.plot(x[top:], y[top:], "o", color=GRAY, markersize=3, label="random latents")
    panel.plot(x[:top], y[:top], "^", color=CURVES[0], markersize=4, label="the ranking's first")
    check = compare_gradients(estimates, exact, slice(None))
    assert check is not None
    panel.set_title(estimates.gradients)
    panel.set_xlabel(f"first order\n(correlation {check.correlation:.2f})")
    panel.ticklabel_format(style="sci", scilimits=(-2, 3), axis="both")
    if estimates.gradients == "plain":
        panel.legend(loc="best", fontsize=7)
