"""An arm sampled in rounds, until every set is decided or nothing more can decide it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch

from deltalens.trials.adaptive.outlook import hopeless
from deltalens.trials.adaptive.plan import Plan
from deltalens.trials.adaptive.settled import settled
from deltalens.trials.adaptive.strength import likely_strength
from deltalens.trials.arm import ArmTrial
from deltalens.trials.conditions import steered
from deltalens.trials.result import RANDOM_SETS, SIGNS, Arm, Candidate
from deltalens.trials.verdicts import (
    ArmVerdict,
    LatentVerdict,
    Outcomes,
    SetVerdict,
    arm_verdict,
)
from deltalens.trials.verdicts.decide import LEVEL
from deltalens.trials.weighing import outcomes_at, rows_of

log = logging.getLogger(__name__)

Sets = Mapping[str, Sequence[Candidate]]


def adaptive_arm(trial: ArmTrial, sets: Sets, plan: Plan) -> tuple[Arm, ArmVerdict]:
    """Sample an arm as far as it takes.

    Everything that it does next follows from the outcomes so far, so the same call continues after
    an interruption, and what a full sweep has sampled already is used.
    """
    trial.sample(trial.candidates, trial.grid.strengths, plan.pilot)
    trial.extend_downward(plan.pilot)
    found = likely_strength(trial.arm())
    if found is None:
        return trial.arm(), ArmVerdict(None, None, {}, {})
    rounds = _Rounds(trial, sets, plan, *found)
    for prompts, spent in zip(plan.looks, plan.spending, strict=True):
        rounds.look(prompts, spent)
        if not rounds.open:
            break
    return trial.arm(), rounds.verdict()


@dataclass
class _Rounds:
    """What has been decided, and who is still sampled. A set that was decided keeps its verdict."""

    trial: ArmTrial
    sets: Sets
    plan: Plan
    strength: float
    within: float
    decided: dict[str, SetVerdict] = field(default_factory=dict)
    smallest_p: dict[str, float] = field(default_factory=dict)
    ranked: dict[str, list[LatentVerdict]] = field(default_factory=dict)
    done: set[Candidate] = field(default_factory=set)
    last: ArmVerdict | None = None

    @property
    def open(self) -> list[str]:
        """Sets of suspects that are not decided."""
        names = (name for name, chosen in self.sets.items() if chosen)
        return [name for name in names if name not in RANDOM_SETS and name not in self.decided]

    def look(self, prompts: list[int], spent: float) -> None:
        """Sample the open sets and the controls up to ``prompts``, and see what is decided."""
        names = [*self.open, *(name for name in self.sets if name in RANDOM_SETS)]
        wanted = dict.fromkeys(item for name in names for item in self.sets[name])
        still = [item for item in wanted if item not in self.done]
        self.trial.sample(still, [self.strength], prompts)
        outcomes = self._outcomes()
        self.last = self._weigh(outcomes, spent)
        for name in self.open:
            self._decide(name, self.last.sets[name], outcomes, len(prompts))
        self._settle(still, outcomes, spent)
        self._log(prompts)

    def _log(self, prompts: list[int]) -> None:
        said = [f"{name} {found.decision}" for name, found in self.decided.items()]
        said += [f"{name} open" for name in self.open]
        log.info(
            "%s at %g, %d of %d prompts: %s; so far %s",
            self.trial.direction,
            self.strength,
            len(prompts),
            len(self.plan.looks[-1]),
            ", ".join(said),
            self.trial.work.spending.words(self.trial.work.judge),
        )

    def verdict(self) -> ArmVerdict:
        """Of every set at its last look."""
        assert self.last is not None  # a plan has at least one look
        names = [name for name in self.last.sets if name in self.decided]
        return replace(self.last, sets={name: self.decided[name] for name in names})

    def _outcomes(self) -> Outcomes:
        trial = self.trial
        conditions = [steered(item, trial.direction, self.strength) for item in trial.candidates]
        return outcomes_at(conditions, trial.grid, trial.work.verdicts, trial.prompts)

    def _weigh(self, outcomes: Outcomes, spent: float) -> ArmVerdict:
        return arm_verdict(
            outcomes,
            [(item.latent, item.sign) for item in self.trial.candidates],
            *rows_of(self.sets, self.trial.candidates),
            sign=SIGNS[self.trial.direction],
            strength=self.strength,
            within=self.within,
            spent=spent,
        )

    def _decide(self, name: str, found: SetVerdict, outcomes: Outcomes, prompts: int) -> None:
        """The p-value is the smallest of all looks, which allow for one another. Single latents
        are ranked once, at the first look, where all are there on the same prompts."""
        first = self.ranked.setdefault(name, found.latents)
        latents = [
            replace(item, p=before.p, q=before.q)
            for item, before in zip(found.latents, first, strict=True)
        ]
        found = replace(found, latents=latents)
        if found.p is not None:
            smallest = min(found.p, self.smallest_p.get(name, 1.0))
            self.smallest_p[name] = smallest
            found = replace(found, p=smallest)
        last = prompts == len(self.plan.looks[-1])
        if last or found.decision != "undecided" or self._hopeless(name, found, outcomes, prompts):
            self.decided[name] = found

    def _hopeless(self, name: str, found: SetVerdict, outcomes: Outcomes, prompts: int) -> bool:
        suspects, controls = rows_of(self.sets, self.trial.candidates)
        everyone = [row for rows in controls.values() for row in rows]
        return hopeless(
            outcomes,
            torch.tensor(suspects[name]),
            torch.tensor(everyone),
            sign=SIGNS[self.trial.direction],
            margin=found.margin,
            level=LEVEL * self.plan.spending[-1],
            share=prompts / len(self.plan.looks[-1]),
        )

    def _settle(self, still: Sequence[Candidate], outcomes: Outcomes, spent: float) -> None:
        """Sample no further what is known well enough, suspects and controls alike."""
        known = settled(outcomes, 1 - LEVEL * spent)
        place = {item: row for row, item in enumerate(self.trial.candidates)}
        self.done |= {item for item in still if known[place[item]]}
