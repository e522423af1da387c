"""From what was ranked to a study's result, checked by ablation and saved."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deltalens.lm.targets.aim import aimed_at
from deltalens.pairs.encode import ways_counted
from deltalens.ranks.ranks import Ranks
from deltalens.study.ablation.first_order import check_first_order
from deltalens.study.attribution import Attribution
from deltalens.study.latents import latent_rows
from deltalens.study.lens import lens_if_possible
from deltalens.study.ranking.effects import PairEffects, Ranked, stderr_over_pairs
from deltalens.study.ranking.prepared import PreparedStudy
from deltalens.study.running.record import describe
from deltalens.study.tokens.dominance import dominant_tokens, warn_of_sinks
from deltalens.study.tokens.effects import kept_by_token, token_effects


@dataclass(frozen=True)
class Running:
    """How studies are run; none of it belongs to what makes a run the same run."""

    check: int
    flips: int
    batch_tokens: int
    progress: bool
    ranks: Ranks


@dataclass(frozen=True, eq=False)
class StudyRun:
    """A study, where its result goes, and entries to record beside its own.

    label: what errors and warnings call it, None where it is the only one.
    """

    study: PreparedStudy
    directory: Path | None
    metadata: Mapping[str, Any]
    label: str | None = None


def finish(
    run: StudyRun, ranked: Ranked, running: Running, timed: Mapping[str, Any]
) -> Attribution:
    """The study's result, saved where it has a directory."""
    started = time.perf_counter()
    result = _result(run.study, ranked)
    found = _first_order(run.study, result, running)
    timings = {**timed, "check_s": time.perf_counter() - started}
    result.metadata.update(
        {**run.metadata, **result.metadata, "first_order": found, "timings": timings}
    )
    if run.directory is not None:
        result.save(run.directory)
    return result


def _result(study: PreparedStudy, ranked: Ranked) -> Attribution:
    top, effects = ranked.top, ranked.effects
    latents = top.latents.tolist()
    dominant = [
        token.describe(study.tokenizer, latents)
        for token in dominant_tokens(study.encoded, effects.per_token, effects.norms)
    ]
    warn_of_sinks(dominant, effects.per_token[0].shape[1])
    return Attribution(
        latents=top.latents.cpu(),
        scores=top.scores.cpu(),
        push=effects.push.mean(0),
        presence=effects.presence.mean(0),
        positive=effects.positive.mean(0),
        negative=effects.negative.mean(0),
        stderr=stderr_over_pairs(effects.difference),
        push_stderr=stderr_over_pairs(effects.push),
        presence_stderr=stderr_over_pairs(effects.presence),
        p_value=ranked.significance.p_value,
        rank_low=ranked.significance.rank_low,
        rank_high=ranked.significance.rank_high,
        error_bound=top.error_bound.cpu(),
        per_pair=effects.difference,
        pairs=study.pairs,
        baseline=study.baseline,
        metadata={
            **_metadata(study, effects, top.certified),
            "dominant_tokens": dominant,
            "by_token": kept_by_token(effects.per_token, effects.difference),
            "significance": ranked.significance.record,
        },
        lens=lens_if_possible(study.model, study.tokenizer, study.decoder, top.latents),
        all_scores=ranked.all_scores,
        token_effects=token_effects(study.tokenizer, study.encoded, effects.per_token),
        directions=effects.directions.result(study.mean),
    )


def _first_order(
    study: PreparedStudy, result: Attribution, running: Running
) -> dict[str, Any] | None:
    """How well first order predicts exact ablation, as JSON values; None where it is not asked."""
    latents = running.check
    if not latents or study.by_latents is not None:
        return None
    return check_first_order(
        study.model,
        study.encoded,
        latent_rows(study.decoder, result.latents[:latents]),
        result.per_pair[:, :latents],
        normalized=study.options.normalize,
        site=study.site,
        mean=study.baseline.mean,
        loss=study.options.loss,
        batch_tokens=running.batch_tokens,
    )


def _metadata(study: PreparedStudy, effects: PairEffects, certified: bool) -> dict[str, Any]:
    positive, negative = effects.losses.mean(0).tolist()
    return {
        **describe(study.model, study.source, study.decoder, study.site, study.baseline),
        **study.settings,
        "counts": {
            "pairs": len(study.pairs),
            "prompt_tokens": effects.tokens,
            "left_out": study.left_out.first + study.left_out.massive,
            "latents": study.decoder.n_latents,
            **_apart(study),
        },
        "sinks": study.left_out.as_dict(),
        "completions": ways_counted(study.encoded),
        "aim": aimed_at(study.tokenizer, study.encoded),
        "mean_losses": {"positive": positive, "negative": negative},
        "certified": certified,
        **({} if study.by_latents is None else {"latent_score": study.by_latents.describe()}),
    }


def _apart(study: PreparedStudy) -> dict[str, int]:
    """How many of the counted tokens only the positive and only the negative completions follow."""
    positive, negative = (
        sum(each) for each in zip(*(pair.own_counted for pair in study.encoded), strict=True)
    )
    return {"before_positive": positive, "before_negative": negative} if positive + negative else {}
