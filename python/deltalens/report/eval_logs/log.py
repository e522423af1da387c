"""One condition of one arm as an Inspect log."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

from deltalens.errors import InputError
from deltalens.pairs.row import Prompt
from deltalens.report.eval_logs.described import Described
from deltalens.report.eval_logs.sample import INCOHERENT, Setting, eval_sample
from deltalens.report.eval_logs.sampled import Judged, Sampled
from deltalens.report.eval_logs.values import identifier, storable_values
from deltalens.trials.conditions import Condition
from deltalens.trials.log import Completion
from deltalens.trials.result import SweepResult
from deltalens.version import __version__

SOLVER = "deltalens/steer"
METRICS = ({"name": "inspect_ai/mean"}, {"name": "inspect_ai/stderr"})
REDUCER = "mean"  # over a prompt's samples
_NO_PROVIDER = "none/"  # Inspect then asks this model nothing, and takes none for it


@dataclass(frozen=True)
class Source:
    """A sweep as it was read. kept: what its completions were made with; name: what tells it from
    others; targets: of a prompt, what a scorer looks for."""

    result: SweepResult
    prompts: Sequence[Prompt]
    kept: dict[str, Any]
    targets: Callable[[Prompt], str | list[str]]

    @property
    def name(self) -> str:
        return identifier(self.kept, self.prompts)


def condition_log(
    source: Source,
    sampled: Sampled,
    condition: Condition,
    completions: Sequence[Completion],
    created: str,
) -> Any:
    """An ``inspect_ai.log.EvalLog`` with a sample for each completion, in order of prompts.

    ``created``: when, in ISO 8601.
    """
    from inspect_ai.log import EvalLog, EvalPlan, EvalPlanStep, EvalStats, recompute_metrics

    about = Described.of(condition, sampled.arm.direction, source.result)
    settings = source.result.settings
    setting = Setting(
        name=identifier(source.name, about.direction, condition),
        model=_NO_PROVIDER + storable_values(sampled.arm.model),
        longest=_number(settings, "max_new_tokens", int),
        about=about,
        judges=sampled.judges,
    )
    samples = list(_samples(source, setting, completions))
    step = EvalPlanStep(solver=SOLVER, params=_steering(source, sampled, about))
    log = EvalLog(
        status="success",
        eval=_spec(source, setting, samples, completions, created),
        plan=EvalPlan(name=SOLVER, steps=[step], config=_generation(settings)),
        stats=EvalStats(started_at=created, completed_at=created, model_usage=_usage(samples)),
        samples=samples,
    )
    recompute_metrics(log)
    return log


def _samples(source: Source, setting: Setting, completions: Sequence[Completion]) -> Any:
    """A prompt's completions are its epochs."""
    for number, found in groupby(completions, key=lambda one: one.key.prompt):
        if number >= len(source.prompts):
            raise InputError(
                f"{len(source.prompts)} prompts, and a completion of prompt {number}; "
                "copy its prompts.jsonl again"
            )
        prompt = source.prompts[number]
        target = source.targets(prompt)
        for epoch, completion in enumerate(found, start=1):
            yield eval_sample(setting, completion, prompt, target, epoch)


def _spec(
    source: Source,
    setting: Setting,
    samples: Sequence[Any],
    completions: Sequence[Completion],
    created: str,
) -> Any:
    from inspect_ai.log import EvalConfig, EvalDataset, EvalSpec

    about, ids = setting.about, sorted({sample.id for sample in samples})
    epochs = max((sample.epoch for sample in samples), default=1)
    return EvalSpec(
        eval_id=identifier(setting.name, "eval"),
        run_id=source.name,
        task_id=setting.name,
        created=created,
        task=about.title,
        task_args=about.as_dict(),
        tags=["deltalens", about.direction, about.kind],
        dataset=EvalDataset(name="prompts", samples=len(ids), sample_ids=ids),
        model=setting.model,
        model_generate_config=_generation(source.result.settings),
        config=EvalConfig(epochs=epochs, epochs_reducer=[REDUCER]),
        packages={"deltalens": __version__},
        scorers=[_scorer(*one) for one in _scored(setting.judges, samples)],
        metadata=_metadata(source, setting, completions),
    )


def _scored(judges: Sequence[Judged], samples: Sequence[Any]) -> list[tuple[Judged, str]]:
    """Each kind of score that there is in the log."""
    there = {name for sample in samples for name in sample.scores}
    kinds = [(judge, judge.name + after) for judge in judges for after in ("", INCOHERENT)]
    return [(judge, name) for judge, name in kinds if name in there]


def _scorer(judge: Judged, name: str) -> dict[str, Any]:
    return {"name": name, "metrics": list(METRICS), "metadata": {"judge": judge.id}}


def _generation(settings: dict[str, Any]) -> Any:
    from inspect_ai.model import GenerateConfig

    return GenerateConfig(
        max_tokens=_number(settings, "max_new_tokens", int),
        temperature=_number(settings, "temperature", float),
        seed=_number(settings, "seed", int),
    )


def _number(settings: dict[str, Any], name: str, kind: type) -> Any:
    """None where there is none."""
    value = settings.get(name)
    return value if type(value) in (int, kind) else None


def _steering(source: Source, sampled: Sampled, about: Described) -> dict[str, Any]:
    """What was done to the model; norm: median‖a‖ at the site."""
    names = ("intervention", "site", "sae", "steer_tokens", "engine", "chat_template_kwargs")
    said = {name: source.result.settings[name] for name in names if name in source.result.settings}
    signed = {"members": about.members, "norm": sampled.arm.norm}
    return {**about.as_dict(), **signed, **storable_values(said)}


def _metadata(
    source: Source, setting: Setting, completions: Sequence[Completion]
) -> dict[str, Any]:
    """How the sweep was made, and how often each judge saw the behaviour, as the sweep counts."""
    return {
        "deltalens": __version__,
        "settings": storable_values(source.result.settings),
        "fingerprints": storable_values(source.kept),
        "rates": {judge.name: _rates(judge, completions) for judge in setting.judges},
    }


def _rates(judge: Judged, completions: Sequence[Completion]) -> dict[str, Any]:
    tally = judge.tally(completions)
    rate = tally.behaviour
    return {**asdict(tally), "rate": rate.value if rate.n else None, "interval": rate.interval}


def _usage(samples: Sequence[Any]) -> dict[str, Any]:
    from inspect_ai.model import ModelUsage

    found: dict[str, Any] = {}
    for sample in samples:
        for model, usage in sample.model_usage.items():
            found[model] = found.get(model, ModelUsage()) + usage
    return found
