"""What is written of a sweep beside its completions: what it is, and how it was made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from deltalens.lm.model.identity import model_fingerprint, model_name
from deltalens.pairs.identity import decoder_fingerprint
from deltalens.trials.result import Direction, SweepResult
from deltalens.trials.setup.given import Given, controls
from deltalens.trials.setup.settings import (
    REFERENCES,
    keep_prompts,
    keep_settings,
    kept_references,
    prompts_fingerprint,
)
from deltalens.trials.side_effects.table import write_side_effects
from deltalens.trials.work import Subject, judge_id


def keep(given: Given, subjects: Mapping[Direction, Subject]) -> None:
    """Write down what the sweep is, or hold it against the one that is there."""
    first = next(iter(subjects.values()))
    sampling = {
        "prompts": prompts_fingerprint(first.prompts),
        "sae": decoder_fingerprint(given.source, first.treatment.decoder),
        "site": first.site.name,
        "engine": first.engine.name,
        "chat_template_kwargs": given.template or None,
        "intervention": given.intervention.name,
        "baseline": first.treatment.ablated_to,
        **asdict(given.generation),
    }
    wanted: dict[str, dict[str, Any]] = {"sampling": sampling}
    for direction, subject in subjects.items():
        wanted[direction] = {"model": model_fingerprint(subject.model), "norm": subject.norm}
    if given.references:
        kept = kept_references(given.run) | dict(given.references)
        wanted[REFERENCES] = {str(latent): value for latent, value in sorted(kept.items())}
    keep_settings(given.run, wanted)


def made_with(given: Given, subjects: Mapping[Direction, Subject]) -> dict[str, Any]:
    """What the sweep was made with, as JSON values."""
    judge, first = given.judge, next(iter(subjects.values()))
    return {
        "judge": {
            "id": judge_id(judge, given.sees),
            "name": judge.name,
            "version": judge.version,
            "sees": given.sees,
        },
        "prompts": len(given.prompts),
        "chat_template_kwargs": given.template,
        **asdict(given.generation),
        **asdict(given.grid),
        "strengths": list(given.grid.strengths),
        "max_incoherence": given.limit,
        "adaptive": given.adaptive,
        **_chosen(given),
        "controls": controls(given),
        "intervention": given.intervention.name,
        "engine": first.engine.name,
        "site": first.site.name,
        "sae": str(getattr(given.source, "path", "")),
        "models": {direction: model_name(one.model) for direction, one in subjects.items()},
    }


def _chosen(given: Given) -> dict[str, Any]:
    """What was chosen greedily, step by step, and on which prompts."""
    if given.selection is None:
        return {}
    steps = {name: [step.as_dict() for step in found] for name, found in given.steps.items()}
    return {"greedy": {**asdict(given.selection), "steps": steps}}


def save(given: Given, result: SweepResult) -> None:
    keep_prompts(given.run, given.prompts)
    result.save(given.run)
    write_side_effects(given.run, result)
