"""The strength to compare at, of few samples."""

from __future__ import annotations

from deltalens.trials.rates import Tally
from deltalens.trials.result import Arm
from deltalens.trials.verdicts.beta import incomplete_beta
from deltalens.trials.verdicts.strength import equal_strength

_PRIOR = 0.5  # Jeffreys


def likely_strength(arm: Arm) -> tuple[float, float] | None:
    """As :meth:`Arm.equal_strength`, with the probability of each latent's being within the budget.

    Of ten samples one is incoherent as often as not where the share is somewhat above a tenth: a
    yes or no would favour strong strengths.
    """
    return equal_strength(
        [
            {abs(p.strength): probability_within(p.tally, arm.budget) for p in curve.points}
            for curve in arm.curves
        ]
    )


def probability_within(tally: Tally, budget: float) -> float:
    """Of the incoherent share's being at most ``budget``, before which nothing was known."""
    coherent = tally.samples - tally.incoherent
    return incomplete_beta(tally.incoherent + _PRIOR, coherent + _PRIOR, budget)
