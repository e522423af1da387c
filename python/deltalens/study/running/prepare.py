"""From what a study is given to studies that can be run, one for each site."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deltalens.engine import Decoder
from deltalens.engine.checks import check_k
from deltalens.engine.decoder import as_decoder
from deltalens.lm import Pair, Site
from deltalens.lm.capture import check_weights
from deltalens.lm.model.identity import model_fingerprint
from deltalens.lm.model.independence import check_readable
from deltalens.lm.sinks import Counted, without_sinks_at
from deltalens.pairs.encode import encode_study
from deltalens.pairs.identity import decoder_fingerprint, vector_fingerprint
from deltalens.study.baseline import Baseline, check_baseline
from deltalens.study.latents import check_d_model
from deltalens.study.options import Options
from deltalens.study.ranking.latent_score import LatentScore
from deltalens.study.ranking.prepared import PreparedStudy
from deltalens.study.running.named import named
from deltalens.study.running.record import run_settings


@dataclass(frozen=True)
class SiteSource:
    """A site, the SAE or decoder whose latents are ranked there, and its baseline."""

    site: Site
    source: Any
    baseline: Baseline


@dataclass(frozen=True)
class _Place:
    """What studies at one site have in common, whatever their pairs."""

    at: SiteSource
    decoder: Decoder
    fingerprint: str
    by_latents: LatentScore | None


def prepare(
    model: Any,
    tokenizer: Any,
    pair_sets: Mapping[str | None, list[Pair]],
    at: Sequence[SiteSource],
    options: Options,
    batch_tokens: int,
) -> list[list[PreparedStudy]]:
    """For each set of pairs a study at each site, or several at one that has one baseline.

    pair_sets: by the names that errors and warnings call them; None where there is only one.

    Raises :class:`~deltalens.errors.InputError` for everything that does not fit.
    """
    check_weights(model)
    check_readable(model)
    places = [_place(one, options) for one in at]
    counted = {}
    for name, pairs in pair_sets.items():
        with named(name):
            counted[name] = _counted(model, tokenizer, pairs, at, options, batch_tokens)
    fingerprint = model_fingerprint(model)
    return [
        [
            _prepared(model, tokenizer, pairs, place, at_site, options, fingerprint)
            for place, at_site in zip(places, counted[name], strict=True)
        ]
        for name, pairs in pair_sets.items()
    ]


def _place(at: SiteSource, options: Options) -> _Place:
    check_baseline(at.baseline, at.site)
    decoder = as_decoder(at.source)
    check_d_model(decoder, at.site.d_model, at.site.name)
    check_k(options.k, decoder.n_latents)
    by_latents = (
        LatentScore.of(at.source, decoder, at.baseline) if options.score == "latent" else None
    )
    return _Place(at, decoder, decoder_fingerprint(at.source, decoder), by_latents)


def _counted(
    model: Any,
    tokenizer: Any,
    pairs: list[Pair],
    at: Sequence[SiteSource],
    options: Options,
    batch_tokens: int,
) -> list[Counted]:
    """For each place; those at one site have the same."""
    medians = {one.site: one.baseline.median_norm for one in at}
    found = without_sinks_at(
        model,
        encode_study(
            model,
            tokenizer,
            pairs,
            options.chat_template_kwargs,
            options.reading,
            target=options.target,
        ),
        list(medians),
        options.sinks,
        medians=list(medians.values()),
        batch_tokens=batch_tokens,
    )
    by_site = dict(zip(medians, found, strict=True))
    return [by_site[one.site] for one in at]


def _prepared(
    model: Any,
    tokenizer: Any,
    pairs: list[Pair],
    place: _Place,
    counted: Counted,
    options: Options,
    fingerprint: str,
) -> PreparedStudy:
    at, (encoded, left_out) = place.at, counted
    settings = run_settings(fingerprint, encoded, place.fingerprint, at.site, at.baseline, options)
    if place.by_latents is not None and place.by_latents.mean is not None:
        settings["fingerprints"]["latent_mean"] = vector_fingerprint(place.by_latents.mean)
    return PreparedStudy(
        model,
        tokenizer,
        pairs,
        encoded,
        at.source,
        place.decoder,
        at.site,
        at.baseline,
        options,
        left_out,
        settings,
        place.by_latents,
    )
