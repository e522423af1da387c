"""Intervals of mean changes, over latents and prompts that are both samples, and crossed."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from deltalens.trials.verdicts.outcomes import Outcomes
from deltalens.trials.verdicts.student import t_quantile


@dataclass(frozen=True)
class Variance:
    """The variance of an estimate, and what it comes from.

    groups: (variance that latents of a group bring as they differ in truth, degrees of freedom).
    prompts: what prompts and answers bring, which more of them would lessen; ``freedom`` likewise.
    """

    total: float
    freedom: float
    groups: tuple[float, ...]
    prompts: float

    def half_width(self, level: float) -> float:
        """Half the interval's width at a confidence ``level``."""
        return t_quantile(level, self.freedom) * math.sqrt(self.total)


def mean_variance(outcomes: Outcomes, rows: Tensor) -> Variance | None:
    """Of the mean change of the latents ``rows``; None for fewer than two prompts."""
    return _variance(outcomes, [(rows, 1.0)])


def difference_variance(outcomes: Outcomes, suspects: Tensor, controls: Tensor) -> Variance | None:
    """Of mean(suspects) − mean(controls); None where there are too few to tell.

    A single suspect is taken to vary as the controls do.
    """
    return _variance(outcomes, [(suspects, 1.0), (controls, -1.0)])


def _variance(outcomes: Outcomes, groups: list[tuple[Tensor, float]]) -> Variance | None:
    """Two-way: of latents plus of prompts less what both count (Cameron, Gelbach and Miller 2011).

    Degrees of freedom by Satterthwaite's rule.
    """
    changes, own, plain = outcomes.changes(), outcomes.own_parts(), outcomes.plain_parts()
    prompts = own.shape[1]
    spreads = _spreads([changes[rows] for rows, _ in groups])
    if prompts < 2 or spreads is None:
        return None
    pull = sum(sign * (own[rows] + plain[rows]).mean(0) for rows, sign in groups)
    by_prompt = float((pull**2).sum()) * prompts / (prompts - 1)  # type: ignore[union-attr]
    noise = [_noise(own[rows]) for rows, _ in groups]
    by_latent = [spread for spread, _ in spreads]
    total = max(sum(by_latent) + by_prompt - sum(noise), *by_latent, by_prompt)
    squares = by_prompt**2 / (prompts - 1)
    squares += sum(spread**2 / freedom for spread, freedom in spreads if freedom)
    true = tuple(max(0.0, a - b) for a, b in zip(by_latent, noise, strict=True))
    return Variance(total, total**2 / squares if squares else 1.0, true, by_prompt)


def _spreads(groups: list[Tensor]) -> list[tuple[float, int]] | None:
    """(variance of each group's mean over its latents, degrees of freedom)."""
    found = [(float(g.var()) / len(g), len(g) - 1) if len(g) > 1 else None for g in groups]
    if len(groups) == 1:
        return [found[0] or (0.0, 0)]
    suspects, controls = found
    if controls is None:
        return None
    return [suspects or (controls[0] * len(groups[1]), controls[1]), controls]


def _noise(own: Tensor) -> float:
    """What both ways count: a mean's variance by what is neither the latent's nor the prompt's."""
    latents = len(own)
    if latents < 2:
        return 0.0
    left = own - own.mean(0)
    return float((left**2).sum()) / (latents * (latents - 1))
