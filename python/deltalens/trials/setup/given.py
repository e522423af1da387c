"""What a sweep is asked for, and whether that goes together."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deltalens.cost.total import Prices
from deltalens.errors import InputError
from deltalens.judge import Judge
from deltalens.lm import Site
from deltalens.lm.sampling.engine import Engine
from deltalens.pairs.row import Prompt
from deltalens.pairs.seen import Sees
from deltalens.ranks.ranks import Ranks
from deltalens.study.baseline import Baseline
from deltalens.trials.conditions import Grid
from deltalens.trials.interventions import Intervention
from deltalens.trials.result import RANDOM_SETS, Candidate, Direction
from deltalens.trials.setup.settings import Generation
from deltalens.trials.together.selection import Selection, Step
from deltalens.trials.verdicts import controls_needed

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Given:
    """What a sweep was asked for, of both models alike."""

    tokenizer: Any
    prompts: list[Prompt]
    source: Any
    sets: Mapping[str, Sequence[Candidate]]
    judge: Judge
    run: Path
    site: int | str | Site
    generation: Generation
    grid: Grid
    sees: Sees
    template: dict[str, Any]
    limit: float
    adaptive: bool
    prices: Prices | None
    ranks: Ranks
    intervention: Intervention
    baseline: Baseline | None
    references: Mapping[int, float] = field(default_factory=dict)
    selection: Selection | None = None
    steps: Mapping[str, list[Step]] = field(default_factory=dict)

    @property
    def tested(self) -> Sequence[int]:
        """The prompts that say what a set proves."""
        if self.selection is not None:
            return self.selection.tested_on
        return range(len(self.prompts))


def check(models: Mapping[Direction, Any], given: Given) -> None:
    if not models or not models.keys() <= {"away", "toward"}:
        raise InputError(f"models are steered 'away' or 'toward', got {sorted(models)}")
    if given.intervention.kind == "ablate" and "toward" in models:
        raise InputError(
            "ablation takes away what there is: it steers away only, so leave the other model out"
        )
    if not given.prompts:
        raise InputError("no prompts to steer on; give at least one")
    if not any(given.sets.get(name) for name in RANDOM_SETS):
        raise InputError("a sweep needs random latents to compare with; add some")
    if given.selection is not None:
        given.selection.check(given.sets)
    if given.selection is not None and given.adaptive:
        raise InputError("greedy selection is not adaptive; leave one of the two out")
    if not 0 <= given.limit <= 1:
        raise InputError(f"max_incoherence must be 0 … 1, got {given.limit}")
    if not callable(getattr(given.judge, "grade", None)):
        raise InputError(f"a sweep needs a judge, got {type(given.judge).__name__}")


def check_engines(models: Mapping[Direction, Any], engines: Mapping[Direction, Engine]) -> None:
    if models.keys() != engines.keys():
        raise InputError(f"engines are for {sorted(engines)}, models are {sorted(models)}")
    names = sorted({engine.name for engine in engines.values()})
    if len(names) > 1:
        raise InputError(f"a sweep has one engine for both models, got {' and '.join(names)}")


def log_controls(given: Given) -> None:
    """Say before anything is sampled whether single latents can pass at all."""
    found = controls(given)
    if found["there"] < found["needed"]:
        log.warning(
            "%d random latents: enough for the verdict on each set; for a single latent to pass "
            "alone it takes %d",
            found["there"],
            found["needed"],
        )


def controls(given: Given) -> dict[str, int]:
    """How many controls there are, and how many it takes for one suspect to pass alone."""
    sizes = {name: len(chosen) for name, chosen in given.sets.items()}
    suspects = max((size for name, size in sizes.items() if name not in RANDOM_SETS), default=0)
    there = sum(size for name, size in sizes.items() if name in RANDOM_SETS)
    return {"there": there, "needed": controls_needed(suspects)}
