"""Latents that more samples would tell nothing new of."""

from __future__ import annotations

import torch
from torch import Tensor

from deltalens.trials.verdicts.decide import MATTERS
from deltalens.trials.verdicts.outcomes import Outcomes
from deltalens.trials.verdicts.student import t_quantile

_PSEUDO = 2.0  # Agresti and Coull: added to either count, so that 0 of n is not known exactly


def settled(outcomes: Outcomes, level: float) -> list[bool]:
    """Whether each latent's change is known to matter, or known not to, bool [latents].

    Known: its interval at ``level`` lies above what matters, below minus that, or between the two.
    Who is a suspect has no part in it.
    """
    changes, half = outcomes.changes(), half_widths(outcomes, level)
    low, high = changes - half, changes + half
    known = (low > MATTERS) | (high < -MATTERS) | ((low > -MATTERS) & (high < MATTERS))
    return known.tolist()


def half_widths(outcomes: Outcomes, level: float) -> Tensor:
    """Half of each change's interval, fp64 [latents]: of prompts as a sample, and no narrower than
    counts as small as these allow; NaN where nothing could be graded."""
    parts = outcomes.own_parts() + outcomes.plain_parts()
    prompts = outcomes.used.sum(1).double()
    clustered = (parts**2).sum(1) * prompts / (prompts - 1).clamp(min=1)
    shown, graded = outcomes.shown.sum(1), outcomes.graded.sum(1)
    share = (shown + _PSEUDO) / (graded + 2 * _PSEUDO)
    counted = share * (1 - share) / (graded + 2 * _PSEUDO)
    t = [t_quantile(level, max(1.0, float(count) - 1)) for count in prompts]
    return torch.tensor(t, dtype=torch.float64) * torch.maximum(clustered, counted).sqrt()
