"""The published comparison: Δ-attribution's latents against Δ-activation's and random ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from deltalens.errors import InputError
from deltalens.study.rates import Grades
from deltalens.study.steer import Completion, Condition

UNSTEERED = "unsteered"
RANDOM = "random"


@dataclass(frozen=True)
class Candidate:
    """A latent under test. ``sign``: +1 when adding d_i should bring the behaviour, else −1."""

    group: str
    latent: int
    sign: int


@dataclass(frozen=True)
class Steered:
    """What steering with one candidate did to one model."""

    candidate: Candidate
    grades: Grades
    change: float  # of the behaviour's rate, against the unsteered model


@dataclass(frozen=True)
class Outcome:
    """One model, steered one way with every candidate.

    band: smallest and largest change that random latents made.
    """

    unsteered: Grades
    steered: list[Steered]
    band: tuple[float, float]

    def of(self, group: str) -> list[Steered]:
        """The candidates of one set, in rank order."""
        return [item for item in self.steered if item.candidate.group == group]

    def mean_change(self, group: str) -> float:
        """Mean change over a set."""
        return fmean(item.change for item in self.of(group))

    def beyond_band(self, group: str, direction: int) -> int:
        """How many of a set moved the rate further ``direction`` (±1) than any random latent."""
        edge = self.band[1] if direction > 0 else self.band[0]
        return sum((item.change - edge) * direction > 0 for item in self.of(group))


def conditions(
    candidates: Sequence[Candidate], strength: float, direction: int, *, unsteered: int
) -> list[Condition]:
    """First the unsteered model, ``unsteered`` times, then every candidate.

    direction +1 steers toward the behaviour, −1 away from it.
    """
    plain = [Condition(UNSTEERED, None, 0.0)] * unsteered
    return plain + [
        Condition(item.group, item.latent, direction * item.sign * strength) for item in candidates
    ]


def outcome(
    candidates: Sequence[Candidate], completions: Sequence[Completion], *, unsteered: int
) -> Outcome:
    """Rates and changes from the completions of :func:`conditions`, in their order."""
    per_condition, rest = divmod(len(completions), unsteered + len(candidates))
    if rest or not per_condition:
        raise InputError(f"{len(completions)} completions do not fit {len(candidates)} candidates")
    grades = [item.grade for item in completions]
    first = unsteered * per_condition
    plain = Grades.count(grades[:first])
    steered = []
    for number, candidate in enumerate(candidates):
        start = first + number * per_condition
        counted = Grades.count(grades[start : start + per_condition])
        change = counted.behaviour.value - plain.behaviour.value
        steered.append(Steered(candidate, counted, change))
    random = [item.change for item in steered if item.candidate.group == RANDOM]
    if not random:
        raise InputError("a trial needs random latents to compare with; add some")
    return Outcome(plain, steered, (min(random), max(random)))
