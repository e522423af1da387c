"""Single latents against random ones: rank p-values, adjusted for how many are tried."""

from __future__ import annotations

import math

from torch import Tensor

FALSE_DISCOVERIES = 0.1  # share allowed among the latents that pass
_ROUNDING = 1e-9


def rank_p(suspects: Tensor, controls: Tensor) -> list[float]:
    """(1 + controls at least as large) / (1 + controls), for each of ``suspects``, fp64 [m].

    The p-value of a latent that is as the controls are; ties count against it.
    """
    as_large = (controls >= suspects[:, None] - _ROUNDING).sum(1).tolist()
    return [(1 + count) / (1 + len(controls)) for count in as_large]


def adjusted(p_values: list[float]) -> list[float]:
    """Benjamini and Hochberg's (1995) step-up adjustment; in the order given.

    Latents with an adjusted value of at most q are false in a share of at most q, on average;
    so also for ranks among the same controls (Bates et al. 2023).
    """
    order = sorted(range(len(p_values)), key=lambda at: p_values[at], reverse=True)
    found, least = [1.0] * len(p_values), 1.0
    for passed, at in enumerate(order):
        least = min(least, p_values[at] * len(p_values) / (len(p_values) - passed))
        found[at] = least
    return found


def controls_needed(suspects: int) -> int:
    """How many controls it takes for one of ``suspects`` latents to pass alone.

    The smallest rank p-value is 1 / (controls + 1), and one alone passes at the level
    :data:`FALSE_DISCOVERIES` / suspects.
    """
    return math.ceil(suspects / FALSE_DISCOVERIES - 1 - _ROUNDING)
