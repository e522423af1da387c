"""Whether the prompts that are left could still decide."""

from __future__ import annotations

import math
from statistics import NormalDist

import torch
from torch import Tensor

from deltalens.trials.verdicts.intervals import difference_variance
from deltalens.trials.verdicts.outcomes import Outcomes
from deltalens.trials.verdicts.student import t_quantile

CHANCE = 0.05  # of a decision, below which a set is given up
_NOTHING = 1e-12


def hopeless(
    outcomes: Outcomes,
    suspects: Tensor,
    controls: Tensor,
    *,
    sign: int,
    margin: float,
    level: float,
    share: float,
) -> bool:
    """Whether neither decision has a chance of :data:`CHANCE` once all prompts are sampled.

    Conditional power under the current trend (Lan and Wittes 1988): the difference found so far is
    taken for true and the prompts still to come for as noisy as those there are. Giving up early
    can only lessen false positives. level: of error, at the last look. share: of the prompts that
    have been sampled.
    """
    changes = sign * outcomes.changes()
    suspects = suspects[~changes[suspects].isnan()]
    controls = controls[~changes[controls].isnan()]
    if not len(suspects) or not len(controls):
        return False
    variance = difference_variance(outcomes, suspects, controls)
    if variance is None:
        return False
    difference = float(changes[suspects].mean() - changes[controls].mean())
    to_come = math.sqrt(variance.prompts * (1 - share)) or _NOTHING
    final = math.sqrt(sum(variance.groups) + variance.prompts * share)
    by_chance = _scatter(outcomes, suspects, controls, share)
    beyond = difference - NormalDist().inv_cdf(1 - level) * by_chance
    alike = margin - difference - t_quantile(1 - level, variance.freedom) * final
    return NormalDist().cdf(max(beyond, alike) / to_come) < CHANCE


def _scatter(outcomes: Outcomes, suspects: Tensor, controls: Tensor, share: float) -> float:
    """The standard deviation of a difference between relabeled sets, once all is sampled: of what
    the latents vary by now, the part that is noise will have lessened to ``share`` of it."""
    rows = torch.cat([suspects, controls])
    own = outcomes.own_parts()[rows]
    noise = float(((own - own.mean(0)) ** 2).sum(1).mean())
    spread = float(outcomes.changes()[rows].var())
    spread = max(spread - noise, 0.0) + noise * share
    return math.sqrt(spread * (1 / len(suspects) + 1 / len(controls)))
