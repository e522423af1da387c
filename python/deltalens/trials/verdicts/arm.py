"""An arm's verdict: its sets of suspects against all its random latents, at one strength."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from deltalens.trials.together.latents import Latents
from deltalens.trials.verdicts.decide import LEVEL, decide, needs, smallest_that_matters
from deltalens.trials.verdicts.intervals import Variance, difference_variance, mean_variance
from deltalens.trials.verdicts.outcomes import Outcomes
from deltalens.trials.verdicts.permutation import permutation_p
from deltalens.trials.verdicts.ranks import adjusted, rank_p
from deltalens.trials.verdicts.result import (
    ArmVerdict,
    Described,
    Interval,
    LatentVerdict,
    SetVerdict,
)

Signed = tuple[Latents, int]


def arm_verdict(
    outcomes: Outcomes,
    candidates: Sequence[Signed],
    suspects: Mapping[str, Sequence[int]],
    controls: Mapping[str, Sequence[int]],
    *,
    sign: int,
    strength: float,
    within: float,
    spent: float = 1.0,
) -> ArmVerdict:
    """outcomes: at ``strength``, a row for each of ``candidates``; suspects, controls: the rows of
    each set. sign: −1 for steering away from the behaviour, +1 toward it. spent: where growing
    samples are looked at several times, the part of the error that this look may make; p-values of
    sets and intervals allow for it."""
    together = [row for rows in controls.values() for row in rows]
    test = _Test(outcomes, candidates, _known(outcomes, together), sign, spent)
    return ArmVerdict(
        strength,
        within,
        {name: _described(outcomes, rows, 1 - LEVEL * spent) for name, rows in controls.items()},
        {name: test.of(rows) for name, rows in suspects.items()},
    )


class _Test:
    """Sets of suspects against the same controls."""

    def __init__(
        self,
        outcomes: Outcomes,
        candidates: Sequence[Signed],
        controls: Tensor,
        sign: int,
        spent: float,
    ) -> None:
        self.outcomes, self.candidates, self.controls = outcomes, candidates, controls
        self.sign, self.spent, self.level = sign, spent, 1 - LEVEL * spent
        self.changes = outcomes.changes()
        graded = float(outcomes.plain_graded.sum())
        unsteered = float(outcomes.plain_shown.sum()) / graded if graded else 0.0
        self.margin = smallest_that_matters(unsteered, sign)

    def of(self, rows: Sequence[int]) -> SetVerdict:
        """One set's verdict."""
        known, controls = _known(self.outcomes, rows), self.controls
        suspects = _described(self.outcomes, rows, self.level)
        each = self._each(rows, known)
        prompts = int(self.outcomes.used[list(rows)].sum(1).max())
        if not len(known) or not len(controls):
            why = "answers that can be graded, of suspects and of random latents"
            return SetVerdict(
                suspects, None, None, None, self.margin, "undecided", why, prompts, each
            )
        values, others = self.sign * self.changes[known], self.sign * self.changes[controls]
        p = min(1.0, permutation_p(values, others) / self.spent)
        difference = float(values.mean() - others.mean())
        variance = difference_variance(self.outcomes, known, controls)
        decision = decide(p, difference, variance, self.margin, self.level)
        missing = ""
        if decision == "undecided":
            missing = needs(difference, variance, self.margin, self.level)
        signed = self.sign * difference
        interval = _interval(signed, variance, self.level)
        return SetVerdict(
            suspects, p, signed, interval, self.margin, decision, missing, prompts, each
        )

    def _each(self, rows: Sequence[int], known: Tensor) -> list[LatentVerdict]:
        """Every latent of a set in its order, with what is known of it."""
        places = known.tolist() if len(self.controls) else []
        changes = self.sign * self.changes
        p_values = rank_p(changes[places], changes[self.controls])
        found = dict(zip(places, zip(p_values, adjusted(p_values), strict=True), strict=True))
        return [
            LatentVerdict(
                *self.candidates[row], _number(self.changes[row]), *found.get(row, (None, None))
            )
            for row in rows
        ]


def _known(outcomes: Outcomes, rows: Sequence[int]) -> Tensor:
    """Those of ``rows`` with a change: what could not be graded is left out on either side."""
    there = torch.tensor(list(dict.fromkeys(rows)), dtype=torch.int64)
    return there[~outcomes.changes()[there].isnan()]


def _described(outcomes: Outcomes, rows: Sequence[int], level: float) -> Described:
    known = _known(outcomes, rows)
    if not len(known):
        return Described(0, len(rows), None, None)
    mean = float(outcomes.changes()[known].mean())
    interval = _interval(mean, mean_variance(outcomes, known), level)
    return Described(len(known), len(rows) - len(known), mean, interval)


def _interval(value: float, variance: Variance | None, level: float) -> Interval | None:
    if variance is None:
        return None
    half = variance.half_width(level)
    return value - half, value + half


def _number(value: Tensor) -> float | None:
    return None if value.isnan() else float(value)
