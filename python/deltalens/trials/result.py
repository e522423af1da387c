"""What a steering sweep found: per model and latent, a curve over strengths."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from deltalens.errors import InputError
from deltalens.storage.atomic import write_text
from deltalens.trials.rates import Tally

STEERING_DIRECTORY = "steering"
SUMMARY_FILE = "summary.json"

ATTRIBUTION, ACTIVATION = "Δ-attribution", "Δ-activation"
PRESENT, PUSH, GRADIENT, COSINE = "present", "push", "gradient", "gradient cosine"
RANDOM, MATCHED = "random", "random, matched"
RANDOM_SETS = (RANDOM, MATCHED)

_ROUNDING = 1e-9  # a share exactly at the budget is within it

Direction = Literal["away", "toward"]
SIGNS: Mapping[Direction, int] = {"away": -1, "toward": 1}


@dataclass(frozen=True)
class Candidate:
    """A latent under test. ``sign``: +1 when adding d_i should bring the behaviour, else −1."""

    latent: int
    sign: int


@dataclass(frozen=True)
class Point:
    """One condition: ``strength`` · median‖a‖ · unit(d_latent) was added; strength is signed."""

    strength: float
    tally: Tally


@dataclass(frozen=True)
class Curve:
    """One candidate over the strength grid, weakest first.

    chosen: the index of the strongest point within the incoherence budget; None when only the
    unsteered model is within it, which then stands for the candidate.
    """

    latent: int
    sign: int
    points: list[Point]
    chosen: int | None


@dataclass(frozen=True)
class Arm:
    """One model steered in one direction with every candidate.

    norm: median‖a‖ at the site. budget: the largest share of incoherent first samples allowed.
    """

    direction: Direction
    model: str
    norm: float
    budget: float
    unsteered: Tally
    curves: list[Curve]

    def curve(self, candidate: Candidate) -> Curve:
        for curve in self.curves:
            if (curve.latent, curve.sign) == (candidate.latent, candidate.sign):
                return curve
        raise InputError(f"latent {candidate.latent} was not steered with")

    def chosen(self, candidate: Candidate) -> Point:
        """The point that stands for a candidate."""
        curve = self.curve(candidate)
        return Point(0.0, self.unsteered) if curve.chosen is None else curve.points[curve.chosen]

    def change(self, candidate: Candidate) -> float:
        """Change of the behaviour's rate at the chosen point; NaN when nothing could be graded."""
        rate = self.chosen(candidate).tally.behaviour.value
        return rate - self.unsteered.behaviour.value

    def with_limit(self, limit: float) -> Arm:
        """The same points, with those chosen that keep incoherence within another budget.

        The budget is ``limit`` or, where the unsteered model exceeds that by itself, ``limit``
        above the unsteered model's share; a candidate's strongest point within it is chosen.
        """
        budget = incoherence_budget(self.unsteered, limit)
        curves = [replace(c, chosen=strongest_within(c.points, budget)) for c in self.curves]
        return replace(self, budget=budget, curves=curves)


def incoherence_budget(unsteered: Tally, limit: float) -> float:
    """The share of incoherent first samples that a steered model may have."""
    if not 0 <= limit <= 1:
        raise InputError(f"max_incoherence must be 0 … 1, got {limit}")
    own = unsteered.incoherence.value
    return limit if own <= limit else own + limit


def strongest_within(points: Sequence[Point], budget: float) -> int | None:
    """The index of the strongest point within the budget."""
    within = [i for i, p in enumerate(points) if p.tally.incoherence.value <= budget + _ROUNDING]
    return max(within, key=lambda i: abs(points[i].strength), default=None)


@dataclass(frozen=True)
class SweepResult:
    """Both arms for all sets of candidates, each in rank order.

    settings: judge, grid, seeds, models, prompts and everything else the sweep was made with.
    """

    sets: dict[str, list[Candidate]]
    arms: dict[Direction, Arm]
    settings: dict[str, Any]

    def changes(self, direction: Direction, name: str) -> list[float]:
        """The changes of one set's candidates, in rank order; none for a set there is not."""
        return [self.arms[direction].change(item) for item in self.sets.get(name, ())]

    def mean_change(self, direction: Direction, name: str) -> float:
        """Mean change over a set, leaving out what could not be graded."""
        known = [change for change in self.changes(direction, name) if change == change]
        return fmean(known) if known else float("nan")

    def band(self, direction: Direction) -> tuple[float, float]:
        """Smallest and largest change that any random latent made."""
        known = [c for name in RANDOM_SETS for c in self.changes(direction, name) if c == c]
        if not known:
            raise InputError("no random latent could be graded; add random latents or prompts")
        return min(known), max(known)

    def beyond_band(self, direction: Direction, name: str) -> int:
        """How many of a set went further in ``direction`` than every random latent."""
        low, high = self.band(direction)
        edge, sign = (low, -1) if direction == "away" else (high, 1)
        return sum((change - edge) * sign > 0 for change in self.changes(direction, name))

    def with_limit(self, limit: float) -> SweepResult:
        """The same points, chosen under another limit of incoherence."""
        arms: dict[Direction, Arm] = {
            name: arm.with_limit(limit) for name, arm in self.arms.items()
        }
        return replace(self, arms=arms, settings={**self.settings, "max_incoherence": limit})

    def save(self, run: str | Path) -> None:
        """Write ``steering/summary.json`` of a run directory."""
        text = json.dumps(asdict(self), indent=1, ensure_ascii=False)
        write_text(Path(run) / STEERING_DIRECTORY / SUMMARY_FILE, text + "\n")

    @classmethod
    def load(cls, run: str | Path) -> SweepResult:
        """Read what :meth:`save` wrote; :class:`InputError` when there is none."""
        path = Path(run) / STEERING_DIRECTORY / SUMMARY_FILE
        if not path.exists():
            raise InputError(f"{run} has no finished sweep; run deltalens steer {run}")
        try:
            return _from_json(json.loads(path.read_text(encoding="utf-8")))
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path} is damaged: {error}; delete it and steer again") from error


def _from_json(stored: dict[str, Any]) -> SweepResult:
    sets = {name: [Candidate(**item) for item in items] for name, items in stored["sets"].items()}
    arms = {
        name: Arm(
            **{
                **arm,
                "unsteered": Tally(**arm["unsteered"]),
                "curves": list(map(_curve, arm["curves"])),
            }
        )
        for name, arm in stored["arms"].items()
    }
    return SweepResult(sets, arms, stored["settings"])


def _curve(stored: dict[str, Any]) -> Curve:
    points = [Point(item["strength"], Tally(**item["tally"])) for item in stored["points"]]
    return Curve(stored["latent"], stored["sign"], points, stored["chosen"])
