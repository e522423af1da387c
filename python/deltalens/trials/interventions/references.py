"""How strongly latents are active where they are, which is what clamping to a quantile goes by."""

from __future__ import annotations

import logging
from collections.abc import Container, Mapping, Sequence
from typing import Any

import torch

from deltalens.errors import InputError
from deltalens.lm import Site, activations
from deltalens.lm.sinks import no_sink
from deltalens.study.activation.latent_means import encoder_at
from deltalens.trials.interventions.intervention import Reference
from deltalens.trials.result import RANDOM_SETS, Candidate

log = logging.getLogger(__name__)


def references(
    reference: Reference,
    known: Mapping[int, float],
    latents: Sequence[int],
    model: Any,
    sequences: Sequence[list[int]],
    source: Any,
    *,
    site: Site,
    limit: float,
) -> dict[int, float]:
    """What each of ``latents`` is clamped to at strength 1; as ``known`` where it is.

    Without latents of which there is no quantile, as they are active nowhere. sequences: the token
    ids that quantiles are over; limit: the largest norm of no sink.
    """
    if reference.value is not None:
        return dict.fromkeys(latents, reference.value)
    assert reference.quantile is not None
    new = [latent for latent in latents if latent not in known]
    found = {latent: known[latent] for latent in latents if latent in known}
    if new:
        found |= active_quantiles(
            model, sequences, source, new, reference.quantile, site=site, limit=limit
        )
    return found


def active_quantiles(
    model: Any,
    sequences: Sequence[list[int]],
    source: Any,
    latents: Sequence[int],
    quantile: float,
    *,
    site: Site,
    limit: float,
) -> dict[int, float]:
    """Latent → the ``quantile`` of its activations above 0 over the tokens of ``sequences``, but
    sinks; without latents that are active nowhere."""
    encoder, chosen = encoder_at(source, site), torch.tensor(latents)
    found = []
    for _, rows in activations(model, sequences, site=site):
        kept = rows[no_sink(rows, limit)]
        if len(kept):
            found.append(encoder.encode_selected(kept, chosen).cpu())
    columns = torch.cat(found).double().unbind(1) if found else ()
    active = {
        latent: column[column > 0] for latent, column in zip(latents, columns, strict=bool(found))
    }
    return {
        latent: float(values.quantile(quantile)) for latent, values in active.items() if len(values)
    }


def with_known(
    sets: Mapping[str, Sequence[Candidate]], known: Container[int]
) -> dict[str, list[Candidate]]:
    """Without candidates that are not all ``known``, suspects and controls alike, and a warning.

    Raises :class:`InputError` where no random latent is left.
    """
    kept = {
        name: [item for item in chosen if all(latent in known for latent, _ in item.members)]
        for name, chosen in sets.items()
    }
    every = {item for chosen in sets.values() for item in chosen}
    missing = every.difference(*kept.values())
    if missing:
        log.warning(
            "%d of %d candidates are left out, as they are active nowhere in the prompts, so that "
            "there is no quantile to clamp them to",
            len(missing),
            len(every),
        )
    if not any(kept.get(name) for name in RANDOM_SETS):
        raise InputError(
            "no random latent is active in the prompts, so that there is no quantile to clamp to; "
            "clamp to a value, or give more prompts"
        )
    return kept
