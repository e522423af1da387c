"""Latents that are intervened on together, as one candidate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from deltalens.errors import InputError
from deltalens.trials.result import RANDOM_SETS, Candidate


def group(candidates: Sequence[Candidate]) -> Candidate:
    """All of them together, each with its sign; of one, itself."""
    if len(candidates) == 1:
        return candidates[0]
    return Candidate(tuple(each for item in candidates for each in item.members), 1)


def in_groups(sets: Mapping[str, Sequence[Candidate]], size: int) -> dict[str, list[Candidate]]:
    """Each set cut into groups of ``size``, in order; what is left over is in none.

    Raises :class:`InputError` where suspects, or all controls, are too few for one.
    """
    found = {
        name: [
            group(chosen[start : start + size]) for start in range(0, len(chosen) - size + 1, size)
        ]
        for name, chosen in sets.items()
    }
    for name, groups in found.items():
        if not groups and name not in RANDOM_SETS:
            raise InputError(
                f"{name} has {len(sets[name])} latents, and {size} are to be tried together; try "
                "fewer"
            )
    if not any(found.get(name) for name in RANDOM_SETS):
        raise InputError(
            f"there are too few live latents for random groups of {size}; try fewer together"
        )
    return {name: groups for name, groups in found.items() if groups}
