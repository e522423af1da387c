"""Models with their prompts, norms and treatments, all checked before anything is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from deltalens.engine.decoder import as_decoder
from deltalens.lm import Site, find_bos, resolve_site
from deltalens.lm.sampling.engine import Engine
from deltalens.lm.sinks import SINKS
from deltalens.pairs.encode import encode_prompt
from deltalens.pairs.row import Prompt
from deltalens.pairs.seen import ends_in_reasoning
from deltalens.study.latents import check_d_model, latent_rows
from deltalens.trials.arm import latents_of
from deltalens.trials.conditions import steered
from deltalens.trials.interventions.references import references, with_known
from deltalens.trials.interventions.treatment import Treatment
from deltalens.trials.residual_norm import median_norm
from deltalens.trials.result import Direction
from deltalens.trials.setup.given import Given
from deltalens.trials.setup.settings import kept_references, kept_settings
from deltalens.trials.work import Subject


def subject_of(given: Given, model: Any, engine: Engine, direction: Direction) -> Subject:
    """The model, its prompts and its norm, all checked; nothing is written yet."""
    site, decoder = resolve_site(model, given.site), as_decoder(given.source)
    check_d_model(decoder, site.d_model, site.name)
    latent_rows(decoder, latents_of(given.sets))
    ids = _encoded(given, model)
    treatment = Treatment(
        given.intervention, given.source, decoder, site, 1.0, given.baseline, given.references
    )
    _check_sampling(given, engine, ids, treatment)
    norm = _norm(given, model, site, direction)
    return Subject(
        model=model,
        engine=engine,
        tokenizer=given.tokenizer,
        site=site,
        treatment=replace(treatment, norm=norm),
        norm=norm,
        prompts=ids,
        answered=[_readable(given.tokenizer, prompt) for prompt in given.prompts],
        opened=[
            ends_in_reasoning(given.tokenizer, prompt, encoded)
            for prompt, encoded in zip(given.prompts, ids, strict=True)
        ],
        generation=given.generation,
    )


def _encoded(given: Given, model: Any) -> list[list[int]]:
    bos = find_bos(model, given.tokenizer)
    return [
        encode_prompt(
            given.tokenizer,
            prompt,
            bos=bos,
            name=f"prompt {number}",
            chat_template_kwargs=given.template,
        )
        for number, prompt in enumerate(given.prompts)
    ]


def _norm(given: Given, model: Any, site: Site, direction: Direction) -> float:
    """Kept, not found again: another batch size could change its last bit, and with it texts."""
    kept = kept_settings(given.run, direction).get("norm")
    return kept or median_norm(
        model, given.tokenizer, given.prompts, site=site, chat_template_kwargs=given.template
    )


def with_references(given: Given, models: Mapping[Direction, Any]) -> Given:
    """With what latents are clamped to: by the first model's prompts, where that is a quantile."""
    reference = given.intervention.reference
    if reference is None:
        return given
    direction, model = next(iter(models.items()))
    site = resolve_site(model, given.site)
    found = references(
        reference,
        kept_references(given.run),
        latents_of(given.sets),
        model,
        _encoded(given, model),
        given.source,
        site=site,
        limit=SINKS.limit(_norm(given, model, site, direction)),
    )
    return replace(given, sets=with_known(given.sets, found), references=found)


def _check_sampling(
    given: Given, engine: Engine, ids: list[list[int]], treatment: Treatment
) -> None:
    """Whatever the engine and the intervention refuse before the first token."""
    treatment.check()
    options = given.generation
    first = next(item for chosen in given.sets.values() for item in chosen)
    condition = steered(first, "away", given.grid.strengths[0])
    steer = treatment.steer([condition] * len(ids), options.steer_tokens)
    engine.stream(ids, options.draw, steer=steer)


def _readable(tokenizer: Any, prompt: Prompt) -> str | list[dict[str, str]]:
    """A prompt as a judge reads it."""
    if isinstance(prompt, list) and prompt and isinstance(prompt[0], int):
        return tokenizer.decode(prompt)
    return prompt  # type: ignore[return-value]
