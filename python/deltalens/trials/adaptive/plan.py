"""When an adaptive sweep looks at what it has, fixed before it begins."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from deltalens.trials.conditions import Grid

SHARES = (0.25, 0.5, 1.0)  # of the prompts, at each look
SPENDING = (0.2, 0.2, 0.6)  # of the error: what each look may spend
_PILOT = 0.1
_PILOT_SAMPLES = 10  # of a condition, to choose a strength by, at least


@dataclass(frozen=True)
class Plan:
    """pilot: the prompts that all candidates are tried on at every strength, to choose one by
    incoherence. looks: all prompts sampled by each look, each a longer beginning of one random
    order; the first has the pilot's. spending: the part of the error that each look may make,
    1 together."""

    pilot: list[int]
    looks: list[list[int]]
    spending: list[float]

    @classmethod
    def of(cls, prompts: int, grid: Grid, seed: int) -> Plan:
        """The plan for so many prompts; the same for the same arguments."""
        order = random.Random(seed).sample(range(prompts), prompts)
        pilot = max(math.ceil(_PILOT * prompts), math.ceil(_PILOT_SAMPLES / grid.samples))
        sizes = [max(math.ceil(share * prompts), pilot) for share in SHARES]
        spending: dict[int, float] = {}
        for size, part in zip(sizes, SPENDING, strict=True):
            size = min(size, prompts)
            spending[size] = spending.get(size, 0.0) + part
        return cls(order[:pilot], [order[:size] for size in spending], list(spending.values()))
