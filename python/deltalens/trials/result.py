"""What a steering sweep found: per model and latent, a curve over strengths."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from deltalens.errors import InputError
from deltalens.storage.atomic import write_text
from deltalens.storage.json_text import parse_json
from deltalens.storage.typed import checked_types
from deltalens.trials.rates import Tally
from deltalens.trials.side_effects.effects import SideEffects
from deltalens.trials.together.latents import Latents, Signed, members, named, read_latents
from deltalens.trials.verdicts.result import ArmVerdict
from deltalens.trials.verdicts.sets import ACTIVATION as ACTIVATION
from deltalens.trials.verdicts.sets import ATTRIBUTION as ATTRIBUTION
from deltalens.trials.verdicts.sets import CHOSEN as CHOSEN
from deltalens.trials.verdicts.sets import COSINE as COSINE
from deltalens.trials.verdicts.sets import GRADIENT as GRADIENT
from deltalens.trials.verdicts.sets import MATCHED as MATCHED
from deltalens.trials.verdicts.sets import PRESENT as PRESENT
from deltalens.trials.verdicts.sets import PUSH as PUSH
from deltalens.trials.verdicts.sets import RANDOM as RANDOM
from deltalens.trials.verdicts.sets import RANDOM_SETS, Direction
from deltalens.trials.verdicts.sets import SIGNS as SIGNS
from deltalens.trials.verdicts.shown.view import COLUMNS, points_of, sweep_view
from deltalens.trials.verdicts.strength import equal_strength
from deltalens.visible.frame import frame_of_rows
from deltalens.visible.shown import Shown
from deltalens.visible.view import View

STEERING_DIRECTORY = "steering"
SUMMARY_FILE = "summary.json"

_ROUNDING = 1e-9  # a share exactly at the budget is within it


@dataclass(frozen=True)
class Candidate:
    """A latent under test. ``sign``: +1 when adding d_i should bring the behaviour, else −1.

    Of several that are tried together each has its own sign, and theirs is +1.
    """

    latent: Latents
    sign: int

    @property
    def members(self) -> list[Signed]:
        """Each latent with its sign."""
        return [(latent, self.sign * own) for latent, own in members(self.latent)]

    @property
    def label(self) -> str:
        """Its number, or the name of several together."""
        return str(self.latent) if isinstance(self.latent, int) else self.name

    @property
    def name(self) -> str:
        """``+17``, or ``+17 −4`` of two together."""
        return named(self.latent, self.sign)


@dataclass(frozen=True)
class Point:
    """One condition, at a signed strength; what that means the sweep's intervention says."""

    strength: float
    tally: Tally
    side_effects: SideEffects | None = None


@dataclass(frozen=True)
class Curve:
    """One candidate over the strength grid, weakest first.

    chosen: the index of the strongest point within the incoherence budget; None where no point is.
    """

    latent: Latents
    sign: int
    points: list[Point]
    chosen: int | None


@dataclass(frozen=True)
class Arm:
    """One model steered in one direction with every candidate.

    norm: median‖a‖ at the site. budget: the largest share of incoherent first samples allowed.
    unsteered_effects: what side effects are held against.
    """

    direction: Direction
    model: str
    norm: float
    budget: float
    unsteered: Tally
    curves: list[Curve]
    unsteered_effects: SideEffects | None = None

    def curve(self, candidate: Candidate) -> Curve:
        for curve in self.curves:
            if (curve.latent, curve.sign) == (candidate.latent, candidate.sign):
                return curve
        raise InputError(f"latent {candidate.label} was not steered with")

    def chosen(self, candidate: Candidate) -> Point | None:
        """The point that stands for a candidate; None where none is within the budget."""
        curve = self.curve(candidate)
        return None if curve.chosen is None else curve.points[curve.chosen]

    def change(self, candidate: Candidate) -> float:
        """Change of the behaviour's rate at the chosen point; NaN when there is none, or nothing
        at it could be graded."""
        point = self.chosen(candidate)
        rate = math.nan if point is None else point.tally.behaviour.value
        return rate - self.unsteered.behaviour.value

    def equal_strength(self) -> tuple[float, float] | None:
        """The strength at which all candidates are compared and the share of them within the
        budget there, see :func:`~deltalens.trials.verdicts.equal_strength`."""
        return equal_strength(
            [
                {abs(p.strength): is_within(p.tally, self.budget) for p in curve.points}
                for curve in self.curves
            ]
        )

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
    within = [i for i, p in enumerate(points) if is_within(p.tally, budget)]
    return max(within, key=lambda i: abs(points[i].strength), default=None)


def is_within(tally: Tally, budget: float) -> bool:
    """Whether no more first samples are incoherent than the budget allows."""
    return tally.incoherence.value <= budget + _ROUNDING


@dataclass(frozen=True)
class SweepResult(Shown):
    """Both arms for all sets of candidates, each in rank order.

    settings: judge, grid, seeds, models, prompts and everything else the sweep was made with.
    verdicts: what each arm proves, by a test at one strength for all candidates; empty for a sweep
    whose incoherence budget was changed since, see :func:`~deltalens.trials.weighed`. Everything
    else describes each candidate at its own strongest strength and decides nothing.
    """

    sets: dict[str, list[Candidate]]
    arms: dict[Direction, Arm]
    settings: dict[str, Any]
    verdicts: dict[Direction, ArmVerdict] = field(default_factory=dict)

    @property
    def intervention(self) -> str:
        """The name of what was done with latents; of earlier sweeps "add"."""
        return str(self.settings.get("intervention", "add"))

    def changes(self, direction: Direction, name: str) -> list[float]:
        """The changes of one set's candidates, in rank order; none for a set there is not."""
        return [self.arms[direction].change(item) for item in self.sets.get(name, ())]

    def mean_change(self, direction: Direction, name: str) -> float:
        """Mean change over a set, leaving out latents without a strength within the budget and
        those that could not be graded."""
        known = [change for change in self.changes(direction, name) if change == change]
        return fmean(known) if known else float("nan")

    def band(self, direction: Direction) -> tuple[float, float] | None:
        """Smallest and largest change that any random latent made; None where none has one."""
        known = [c for name in RANDOM_SETS for c in self.changes(direction, name) if c == c]
        return (min(known), max(known)) if known else None

    def is_beyond(self, direction: Direction, candidate: Candidate) -> bool | None:
        """Whether a candidate went further than every random latent: a description, no test.
        None where one of them has no change."""
        band, change = self.band(direction), self.arms[direction].change(candidate)
        if band is None or change != change:
            return None
        return change < band[0] if direction == "away" else change > band[1]

    def beyond_band(self, direction: Direction, name: str) -> int:
        """How many of a set went further in ``direction`` than every random latent."""
        return sum(bool(self.is_beyond(direction, item)) for item in self.sets.get(name, ()))

    def none_within(self, direction: Direction, name: str) -> int:
        """How many of a set have no strength within the incoherence budget."""
        arm = self.arms[direction]
        return sum(arm.chosen(item) is None for item in self.sets.get(name, ()))

    def with_limit(self, limit: float) -> SweepResult:
        """The same points, chosen under another limit of incoherence; without verdicts."""
        arms: dict[Direction, Arm] = {
            name: arm.with_limit(limit) for name, arm in self.arms.items()
        }
        settings = {**self.settings, "max_incoherence": limit}
        return replace(self, arms=arms, settings=settings, verdicts={})

    def to_pandas(self) -> Any:
        """A ``pandas.DataFrame``: a row for each arm, candidate and strength, with counts, rates,
        and whether the strength is the one chosen.

        Raises :class:`InputError` where there is no pandas.
        """
        return frame_of_rows(COLUMNS, list(points_of(self)))

    def plot(self) -> Any:
        """A matplotlib figure of what every latent did, which shows itself in a notebook.

        A panel per model, a column per set: each latent's change of the behaviour's rate at its
        chosen strength, with its interval; the sets' means; the band of random latents.
        """
        from deltalens.trials.verdicts.shown.points import figure_1
        from deltalens.visible.figures.style import style

        with style("plot"):
            return figure_1(self)

    def plot_strengths(self) -> Any:
        """The same of the first suspects over all strengths: the behaviour's rate, and below it the
        share of incoherent completions.

        Raises :class:`InputError` for a sweep without suspects.
        """
        from deltalens.trials.verdicts.shown.curves import figure_2
        from deltalens.visible.figures.style import style

        with style("plot"):
            return figure_2(self)

    def _view(self) -> View:
        return sweep_view(self)

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
            return _from_json(parse_json(path.read_text(encoding="utf-8")))
        except Exception as error:  # a damaged file fails in many ways
            raise InputError(f"{path} is damaged: {error}; delete it and steer again") from error


def _from_json(stored: dict[str, Any]) -> SweepResult:
    sets = {name: list(map(_candidate, items)) for name, items in stored["sets"].items()}
    arms = {
        name: Arm(
            **{
                **arm,
                "unsteered": Tally(**arm["unsteered"]),
                "curves": list(map(_curve, arm["curves"])),
                "unsteered_effects": SideEffects.from_json(arm.get("unsteered_effects")),
            }
        )
        for name, arm in stored["arms"].items()
    }
    verdicts = {name: ArmVerdict.from_json(v) for name, v in stored.get("verdicts", {}).items()}
    if not isinstance(stored["settings"]["judge"]["id"], str):
        raise TypeError("the judge has no id")
    found: SweepResult = checked_types(SweepResult(sets, arms, stored["settings"], verdicts))
    return found


def _candidate(stored: dict[str, Any]) -> Candidate:
    return Candidate(read_latents(stored["latent"]), stored["sign"])


def _curve(stored: dict[str, Any]) -> Curve:
    points = [
        Point(
            item["strength"],
            Tally(**item["tally"]),
            SideEffects.from_json(item.get("side_effects")),
        )
        for item in stored["points"]
    ]
    if stored["chosen"] is not None:
        points[stored["chosen"]]  # IndexError where there is none
    return Curve(read_latents(stored["latent"]), stored["sign"], points, stored["chosen"])
