"""Side effects of a sweep that is finished."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from deltalens.engine.decoder import as_decoder
from deltalens.errors import InputError
from deltalens.lm import resolve_site
from deltalens.lm.batching import BATCH_TOKENS
from deltalens.lm.model.identity import model_fingerprint
from deltalens.pairs.identity import decoder_fingerprint
from deltalens.ranks.alone import alone
from deltalens.ranks.ranks import ALONE, Ranks
from deltalens.storage.lock import lock_in
from deltalens.study.baseline import Baseline
from deltalens.study.latents import check_d_model
from deltalens.trials.interventions.intervention import ADD, Intervention
from deltalens.trials.interventions.treatment import Treatment
from deltalens.trials.log import completions_path, read_completions
from deltalens.trials.result import Arm, Direction, SweepResult
from deltalens.trials.setup.settings import kept_references, kept_settings
from deltalens.trials.side_effects.arms import read_neutral, with_side_effects
from deltalens.trials.side_effects.reading import Steered, neutral_readings
from deltalens.trials.side_effects.table import write_side_effects
from deltalens.trials.side_effects.texts import Neutral, NeutralTexts


def side_effects(
    run: str | Path,
    models: Mapping[Direction, Any],
    tokenizer: Any,
    decoder: Any,
    neutral: Neutral,
    *,
    intervention: Intervention = ADD,
    baseline: Baseline | None = None,
    batch_tokens: int = BATCH_TOKENS,
    progress: bool = False,
    ranks: Ranks = ALONE,
) -> SweepResult:
    """Measure what every condition of a finished sweep does beside what it is for.

    Nothing is sampled or graded: the neutral texts are read with each condition that was tried,
    where they have not been, and the lengths of answers are counted from the completions that are
    there. ``models``, by direction, ``decoder``, ``intervention`` and ``baseline`` are those of the
    sweep. The result is the sweep's with side effects at its points, and is saved in its place.
    Raises :class:`InputError` where they are others, and for other texts than before.
    """
    run = Path(run)
    with alone(lock_in(run), ranks):
        result = SweepResult.load(run)
        _check_arms(models, result)
        steered = {
            direction: _steered(run, direction, model, decoder, intervention, baseline)
            for direction, model in models.items()
        }
        template = kept_settings(run, "sampling").get("chat_template_kwargs") or {}
        texts = NeutralTexts.of(neutral, next(iter(models.values())), tokenizer, template)
        readings = neutral_readings(run, texts, steered, ranks=ranks, batch_tokens=batch_tokens)
        read_neutral(readings, result.arms, progress=progress)
        arms = {
            direction: _described(run, arm, tokenizer, result)
            for direction, arm in result.arms.items()
        }
        found = replace(result, arms=arms)
        ranks.from_first(lambda: _save(run, found))
    return found


def _check_arms(models: Mapping[Direction, Any], result: SweepResult) -> None:
    if models.keys() != result.arms.keys():
        raise InputError(
            f"the sweep steered {' and '.join(sorted(result.arms))}, models are given for "
            f"{' and '.join(sorted(models)) or 'none'}"
        )


def _steered(
    run: Path,
    direction: Direction,
    model: Any,
    source: Any,
    intervention: Intervention,
    baseline: Baseline | None,
) -> Steered:
    """As the sweep steered, held against what it has written down."""
    sampling, own = kept_settings(run, "sampling"), kept_settings(run, direction)
    if not sampling or not own:
        raise InputError(f"{run} does not say how it was steered; steer again")
    if model_fingerprint(model) != own["model"]:
        raise InputError(
            f"the model steered {direction} is not the one, or not in the dtype, that the sweep in "
            f"{run} was made with; give that one"
        )
    decoder = as_decoder(source)
    if decoder_fingerprint(source, decoder) != sampling["sae"]:
        raise InputError(f"the sweep in {run} was made with another SAE; give that one")
    site = resolve_site(model, sampling["site"])
    check_d_model(decoder, site.d_model, site.name)
    treatment = Treatment(
        intervention, source, decoder, site, own["norm"], baseline, kept_references(run)
    )
    treatment.check()
    there = sampling["intervention"], sampling.get("baseline")
    if there != (intervention.name, treatment.ablated_to):
        raise InputError(
            f"the sweep in {run} is of another intervention ({there[0]} there, {intervention.name} "
            "here) or baseline; give that one"
        )
    return Steered(model, treatment, sampling["steer_tokens"])


def _save(run: Path, result: SweepResult) -> None:
    result.save(run)
    write_side_effects(run, result)


def _described(run: Path, arm: Arm, tokenizer: Any, result: SweepResult) -> Arm:
    completions = read_completions(completions_path(run, arm.direction)).values()
    return with_side_effects(arm, run, completions, tokenizer, result.settings["max_new_tokens"])
