"""A condition in the words of whoever looks for it among logs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from deltalens.trials.conditions import UNSTEERED, Condition
from deltalens.trials.result import CHOSEN, RANDOM_SETS, SIGNS, Candidate, Direction, SweepResult
from deltalens.trials.together.latents import members

Kind = Literal["unsteered", "suspect", "control", "other"]
"""other: tried but no candidate of the finished sweep, or chosen among random latents."""


@dataclass(frozen=True)
class Described:
    """kind: what the condition is in its sweep; sets: those that its candidate is in."""

    direction: Direction
    condition: Condition
    kind: Kind
    sets: list[str]

    @classmethod
    def of(cls, condition: Condition, direction: Direction, result: SweepResult) -> Described:
        if condition == UNSTEERED or condition.latent is None:
            return cls(direction, condition, "unsteered", [])
        sign = 1 if condition.strength * SIGNS[direction] > 0 else -1
        candidate = Candidate(condition.latent, sign)
        sets = [name for name, chosen in result.sets.items() if candidate in chosen]
        return cls(direction, condition, _kind(sets), sets)

    @property
    def latents(self) -> str | None:
        """``17``, or ``+17 −4`` of several together; None without steering."""
        if self.condition.latent is None:
            return None
        return Candidate(self.condition.latent, 1).label

    @property
    def title(self) -> str:
        """``steer away, latent 17 at -0.4``."""
        if self.latents is None:
            return f"steer {self.direction}, unsteered"
        what = "latent" if isinstance(self.condition.latent, int) else "latents"
        return f"steer {self.direction}, {what} {self.latents} at {self.condition.strength:g}"

    def as_dict(self) -> dict[str, Any]:
        """What samples are sorted by. latent: the number, where it is a single one."""
        latent = self.condition.latent
        return {
            "direction": self.direction,
            "kind": self.kind,
            "sets": self.sets,
            "latent": latent if isinstance(latent, int) else None,
            "latents": self.latents,
            "strength": self.condition.strength,
        }

    @property
    def members(self) -> list[list[int]]:
        """Each latent with its sign."""
        return [list(each) for each in members(self.condition.latent)]


def _kind(sets: list[str]) -> Kind:
    if any(name in RANDOM_SETS for name in sets):
        return "control"
    return "suspect" if any(name != CHOSEN for name in sets) else "other"
