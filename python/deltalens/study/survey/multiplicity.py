"""How many of a survey's studies find anything, when all of them are taken together."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values adjusted for their number, in their order (S. Holm, 1979): at most a share α of
    families of true hypotheses has one below α, however the p-values depend on each other."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    scaled = [(len(order) - place) * p_values[at] for place, at in enumerate(order)]
    adjusted = [0.0] * len(order)
    for at, value in zip(order, accumulate(scaled, max), strict=True):
        adjusted[at] = min(1.0, value)
    return adjusted
