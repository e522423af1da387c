"""One arm of a sweep: what is sampled of it, and its curves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from deltalens.lm.model.identity import model_name
from deltalens.trials.conditions import UNSTEERED, Condition, Grid, steered
from deltalens.trials.log import Completion, both_attempts
from deltalens.trials.rates import Tally
from deltalens.trials.result import Arm, Candidate, Curve, Direction, Point
from deltalens.trials.work import ArmWork

Prompts = dict[Condition, Sequence[int]]
"""The prompts that each condition has been sampled on."""


def distinct(sets: Mapping[str, Sequence[Candidate]]) -> list[Candidate]:
    """Every candidate once, in the order of the sets."""
    return list(dict.fromkeys(item for chosen in sets.values() for item in chosen))


def latents_of(sets: Mapping[str, Sequence[Candidate]]) -> list[int]:
    """Every latent of the sets once, rising."""
    return sorted({latent for item in distinct(sets) for latent, _ in item.members})


class ArmTrial:
    """Candidates steered with in one direction, as far as they have been sampled."""

    def __init__(
        self,
        work: ArmWork,
        candidates: Sequence[Candidate],
        grid: Grid,
        direction: Direction,
        limit: float,
        *,
        progress: bool,
    ) -> None:
        self.work, self.candidates, self.grid = work, list(candidates), grid
        self.direction, self.limit, self.progress = direction, limit, progress
        self.prompts: Prompts = {}

    def of(self, candidates: Sequence[Candidate]) -> ArmTrial:
        """The same arm of other candidates, of which nothing is counted yet."""
        return ArmTrial(
            self.work, candidates, self.grid, self.direction, self.limit, progress=self.progress
        )

    def sample(
        self, candidates: Iterable[Candidate], strengths: Iterable[float], prompts: Sequence[int]
    ) -> None:
        """Steer with every candidate at every strength on ``prompts``, and on these unsteered."""
        keys = []
        for condition in self._conditions(candidates, strengths):
            self.prompts[condition] = sorted({*self.prompts.get(condition, ()), *prompts})
            keys += list(self.grid.keys(condition, prompts))
        self.work.complete(keys, progress=self.progress)

    def rehearsed(
        self, candidates: Iterable[Candidate], strengths: Iterable[float], prompts: Sequence[int]
    ) -> Iterator[Completion]:
        """The completions of :meth:`sample` that are missing, neither kept nor graded."""
        conditions = self._conditions(candidates, strengths)
        return self.work.rehearsed([k for c in conditions for k in self.grid.keys(c, prompts)])

    def wanted(self) -> list[Condition]:
        """Steering with every candidate at every strength of the grid."""
        return self._conditions(self.candidates, self.grid.strengths)[1:]

    def _conditions(
        self, candidates: Iterable[Candidate], strengths: Iterable[float]
    ) -> list[Condition]:
        """Without steering first."""
        strengths = list(strengths)
        conditions = dict.fromkeys(
            steered(item, self.direction, strength) for item in candidates for strength in strengths
        )
        return [UNSTEERED, *conditions]

    def extend_downward(self, prompts: Sequence[int]) -> None:
        """Halve the smallest strength for candidates without one within the budget, all alike.

        Where more than half are without, everyone is tried, so that one strength is common to all.
        """
        for strength in self.grid.weaker():
            curves = self.arm().curves
            lacking = [Candidate(c.latent, c.sign) for c in curves if c.chosen is None]
            if not lacking:
                return
            everyone = 2 * len(lacking) > len(self.candidates)
            self.sample(self.candidates if everyone else lacking, [strength], prompts)

    def arm(self) -> Arm:
        """The curves of what has been sampled, with the strengths chosen."""
        subject = self.work.subject
        return Arm(
            direction=self.direction,
            model=model_name(subject.model),
            norm=subject.norm,
            budget=0.0,
            unsteered=self._tally(UNSTEERED),
            curves=[self._curve(item) for item in self.candidates],
        ).with_limit(self.limit)

    def _curve(self, candidate: Candidate) -> Curve:
        strengths = sorted({*self.grid.strengths, *self.grid.weaker()})
        conditions = [steered(candidate, self.direction, strength) for strength in strengths]
        points = [Point(c.strength, self._tally(c)) for c in conditions if c in self.prompts]
        return Curve(candidate.latent, candidate.sign, points, chosen=None)

    def _tally(self, condition: Condition) -> Tally:
        keys = self.grid.keys(condition, self.prompts[condition])
        attempts = [both_attempts(self.work.verdicts, key) for key in keys]
        return Tally.count([first for first, _ in attempts], [last for _, last in attempts])
