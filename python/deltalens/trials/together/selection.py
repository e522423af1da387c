"""Greedy forward selection: the latent that does most, then its best partner, and so on."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from typing import Any

from deltalens.errors import InputError
from deltalens.trials.arm import ArmTrial
from deltalens.trials.result import RANDOM_SETS, SIGNS, Candidate
from deltalens.trials.together.group import group

_LEAST = 4  # prompts: two to choose on, two to test on


@dataclass(frozen=True)
class Selection:
    """How many latents are chosen of each set of suspects, and on which prompts.

    ``tested_on`` are the others: what a set proves is computed from these alone, as a choice
    flatters what it was made by.
    """

    size: int
    chosen_on: list[int]
    tested_on: list[int]

    @classmethod
    def of(cls, size: int, prompts: int, seed: int) -> Selection:
        """Halves of a random order that the seed fixes."""
        if prompts < _LEAST:
            raise InputError(
                f"greedy selection chooses on one half of the prompts and tests on the other; "
                f"{prompts} are too few, give at least {_LEAST}"
            )
        order = random.Random(seed).sample(range(prompts), prompts)
        half = prompts // 2
        return cls(size, sorted(order[:half]), sorted(order[half:]))

    def check(self, sets: Mapping[str, Sequence[Candidate]]) -> None:
        """Raise :class:`InputError` for pools that are too small and controls of another size."""
        for name, chosen in sets.items():
            if name in RANDOM_SETS:
                other = [item.name for item in chosen if len(item.members) != self.size]
                if other:
                    raise InputError(f"random groups are to have {self.size} latents: {other[0]}")
            elif 0 < len(chosen) < self.size:
                raise InputError(f"{self.size} of {name}'s {len(chosen)} latents cannot be chosen")


@dataclass(frozen=True)
class Step:
    """What was best, with the change of the rate on the prompts chosen on, at its own strength."""

    candidate: Candidate
    change: float
    strength: float | None

    def as_dict(self) -> dict[str, Any]:
        """As JSON values."""
        change = None if self.change != self.change else self.change
        members = [list(each) for each in self.candidate.members]
        return {"latents": members, "change": change, "strength": self.strength}


def chosen_greedily(
    trial: ArmTrial, pool: Sequence[Candidate], selection: Selection
) -> Iterator[Step]:
    """Of every step the best candidate: those of the step before, with one latent of ``pool`` more.

    Best is the largest change in the trial's direction, each candidate at its strongest strength
    within the budget; of equal ones, and where there is none, the first in the pool's order.
    """
    chosen: list[Candidate] = []
    for _ in range(selection.size):
        left = [item for item in pool if item not in chosen]
        tried = [group([*chosen, item]) for item in left]
        stage = trial.of(tried)
        stage.sample(tried, trial.grid.strengths, selection.chosen_on)
        arm = stage.arm()
        changes = [SIGNS[trial.direction] * arm.change(item) for item in tried]
        moved = [-2.0 if isnan(change) else change for change in changes]
        best = moved.index(max(moved))
        point = arm.chosen(tried[best])
        strength = None if point is None else abs(point.strength)
        yield Step(tried[best], arm.change(tried[best]), strength)
        chosen.append(left[best])


def assumed_stages(pool: Sequence[Candidate], size: int) -> Iterator[list[Candidate]]:
    """What every step would try if it chose in the pool's order: as many as it will."""
    for step in range(min(size, len(pool))):
        yield [group([*pool[:step], item]) for item in pool[step:]]
