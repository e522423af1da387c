"""Sets of candidates, of which some are suspects and some controls, and where they are steered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

Direction = Literal["away", "toward"]
SIGNS: Mapping[Direction, int] = {"away": -1, "toward": 1}

ATTRIBUTION, ACTIVATION = "Δ-attribution", "Δ-activation"
PRESENT, PUSH, GRADIENT, COSINE = "present", "push", "gradient", "gradient cosine"
RANDOM, MATCHED = "random", "random, matched"
CHOSEN = "random, chosen alike"  # no control: what a greedy choice makes of random latents
RANDOM_SETS = (RANDOM, MATCHED)

Ranking = Literal["attribution", "push", "present", "activation", "gradient", "cosine"]
SET_NAMES: Mapping[Ranking, str] = {
    "attribution": ATTRIBUTION,
    "push": PUSH,
    "present": PRESENT,
    "activation": ACTIVATION,
    "gradient": GRADIENT,
    "cosine": COSINE,
}


def suspect_names(sets: Mapping[str, Sequence[Any]]) -> list[str]:
    """Those of a sweep's sets that hold suspects, in their order; the others hold controls."""
    return [name for name, candidates in sets.items() if candidates and name not in RANDOM_SETS]
