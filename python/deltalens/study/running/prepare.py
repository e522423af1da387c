"""From what a study is given to studies that can be run, one for each site."""

from __future__ import annotations

from collections.abc import Sequence
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
from deltalens.pairs.identity import vector_fingerprint
from deltalens.study.baseline import Baseline, check_baseline
from deltalens.study.latents import check_d_model
from deltalens.study.options import Options
from deltalens.study.ranking.latent_score import LatentScore
from deltalens.study.ranking.prepared import PreparedStudy
from deltalens.study.record import run_settings


@dataclass(frozen=True)
class SiteSource:
    """A site, the SAE or decoder whose latents are ranked there, and its baseline."""

    site: Site
    source: Any
    baseline: Baseline


def prepare(
    model: Any,
    tokenizer: Any,
    pairs: list[Pair],
    at: Sequence[SiteSource],
    options: Options,
    batch_tokens: int,
) -> list[PreparedStudy]:
    """A study for each site, of the same pairs.

    Raises :class:`~deltalens.errors.InputError` for everything that does not fit.
    """
    check_weights(model)
    check_readable(model)
    decoders = [_checked_decoder(one, options.k) for one in at]
    counted = without_sinks_at(
        model,
        encode_study(model, tokenizer, pairs, options.chat_template_kwargs),
        [one.site for one in at],
        options.sinks,
        medians=[one.baseline.median_norm for one in at],
        batch_tokens=batch_tokens,
    )
    fingerprint = model_fingerprint(model)
    return [
        _prepared(model, tokenizer, pairs, one, decoder, of_site, options, fingerprint)
        for one, decoder, of_site in zip(at, decoders, counted, strict=True)
    ]


def _checked_decoder(one: SiteSource, k: int) -> Decoder:
    check_baseline(one.baseline, one.site)
    decoder = as_decoder(one.source)
    check_d_model(decoder, one.site.d_model, one.site.name)
    check_k(k, decoder.n_latents)
    return decoder


def _prepared(
    model: Any,
    tokenizer: Any,
    pairs: list[Pair],
    at: SiteSource,
    decoder: Decoder,
    counted: Counted,
    options: Options,
    fingerprint: str,
) -> PreparedStudy:
    encoded, left_out = counted
    by_latents = (
        LatentScore.of(at.source, decoder, at.baseline) if options.score == "latent" else None
    )
    settings = run_settings(fingerprint, encoded, at.source, decoder, at.site, at.baseline, options)
    if by_latents is not None and by_latents.mean is not None:
        settings["fingerprints"]["latent_mean"] = vector_fingerprint(by_latents.mean)
    return PreparedStudy(
        model,
        tokenizer,
        pairs,
        encoded,
        at.source,
        decoder,
        at.site,
        at.baseline,
        options,
        left_out,
        settings,
        by_latents,
    )
