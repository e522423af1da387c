"""Beyond chance, no different, or more samples needed."""

from __future__ import annotations

import math

from deltalens.trials.verdicts.intervals import Variance
from deltalens.trials.verdicts.result import Decision

LEVEL = 0.05
MATTERS = 0.1  # of a rate: ten percentage points
_ROOM = 0.5  # or this much of what the direction leaves, where that is less
_MOST = 100  # times as many prompts: beyond it, no number is said


def smallest_that_matters(unsteered: float, sign: int) -> float:
    """A difference of ten points, or half of what there is to move where that is less.

    unsteered: the rate without steering; sign: −1 away from the behaviour, +1 toward it.
    """
    return min(MATTERS, _ROOM * (unsteered if sign < 0 else 1 - unsteered))


def decide(
    p: float, difference: float, variance: Variance | None, margin: float, level: float
) -> Decision:
    """difference: in the direction steered. level: of the interval's confidence."""
    if p <= LEVEL:
        return "beyond"
    if variance is not None and difference + variance.half_width(level) < margin:
        return "alike"
    return "undecided"


def needs(difference: float, variance: Variance | None, margin: float, level: float) -> str:
    """What would decide an undecided set, if the truth were what was estimated."""
    if variance is None:
        return "more latents in each set, and at least two prompts"
    t = variance.half_width(level) / math.sqrt(variance.total) if variance.total else 0.0
    half = max(difference, margin - difference)  # the nearer of the two decisions
    wanted = (half / t) ** 2 if t else math.inf
    times = _times(variance.prompts, wanted - sum(variance.groups))
    if times is not None:
        return f"about {_factor(times)} as many prompts"
    suspects, controls = variance.groups
    times = _times(controls, wanted - suspects)
    if times is not None:
        return f"more random latents, about {_factor(times)} as many, and more prompts"
    return "more latents in the set: they differ too much among themselves"


def _times(part: float, room: float) -> float | None:
    """How many times as many samples bring ``part`` of a variance down to ``room``."""
    if room <= 0 or part > _MOST * room:
        return None
    return max(part / room, 1.0)


def _factor(times: float) -> str:
    return f"{max(times, 1.1):.2g}×"
