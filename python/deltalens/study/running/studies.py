"""Prepared studies of one set of pairs at one or several sites, run to their results."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deltalens.errors import InputError
from deltalens.pairs.encode import ways_counted
from deltalens.ranks.ranks import Ranks
from deltalens.study.ablation.first_order import check_first_order
from deltalens.study.attribution import Attribution
from deltalens.study.latents import latent_rows
from deltalens.study.lens import lens_if_possible
from deltalens.study.ranking.effects import PairEffects, Ranked, stderr_over_pairs
from deltalens.study.ranking.prepared import PreparedStudy
from deltalens.study.ranking.rank import rank
from deltalens.study.record import describe
from deltalens.study.run import differing, discard, is_complete, own_room, work_directory
from deltalens.study.running.capture import capture_missing
from deltalens.study.running.row_store import RowStore
from deltalens.study.tokens.dominance import dominant_tokens, warn_of_sinks
from deltalens.study.tokens.effects import token_effects


@dataclass(frozen=True)
class Running:
    """How studies are run; none of it belongs to what makes a run the same run."""

    check: int
    flips: int
    batch_tokens: int
    progress: bool
    metadata: Mapping[str, Any]
    ranks: Ranks


def run_studies(
    studies: Sequence[PreparedStudy], directories: Sequence[Path | None], running: Running
) -> list[Attribution]:
    """The studies' results, complete ones as their directories hold them.

    All that are not complete are captured together and then ranked one after the other, each saved
    as soon as it is there. A study that fails keeps none of the others from its result; the error,
    which names its site, comes at the end. Several processes capture, scan and return together;
    the first of them saves.
    """
    _check_one_study(studies, running.ranks)
    complete = running.ranks.from_first(lambda: _complete(studies, directories))
    results = {number: Attribution.load(directory) for number, directory in complete.items()}
    todo = [number for number in range(len(studies)) if number not in complete]
    if todo:
        found = _run([studies[n] for n in todo], [directories[n] for n in todo], running)
        results.update(zip(todo, found, strict=True))
    return [results[number] for number in range(len(studies))]


def _check_one_study(studies: Sequence[PreparedStudy], ranks: Ranks) -> None:
    own = [study.settings for study in studies]
    for here, first in zip(own, ranks.from_first(lambda: own), strict=True):
        if here != first:
            raise InputError(
                f"process {ranks.rank} has another study than the first: {differing(first, here)}; "
                "start all of them with the same command and the same files"
            )


def _complete(
    studies: Sequence[PreparedStudy], directories: Sequence[Path | None]
) -> dict[int, Path]:
    """Where the studies that are complete lie, by their numbers."""
    each = enumerate(zip(studies, directories, strict=True))
    return {
        number: directory
        for number, (study, directory) in each
        if directory is not None and is_complete(directory, study.settings)
    }


def _run(
    studies: Sequence[PreparedStudy], directories: Sequence[Path | None], running: Running
) -> list[Attribution]:
    started = time.perf_counter()
    with ExitStack() as stack:
        works = [
            stack.enter_context(work_directory(directory, study.settings, running.ranks))
            for study, directory in zip(studies, directories, strict=True)
        ]
        stores = [
            RowStore(work, study.pairs, study.site.d_model)
            for work, study in zip(works, studies, strict=True)
        ]
        capture_missing(studies, stores, running.batch_tokens, running.progress, running.ranks)
        timings = {"capture_s": time.perf_counter() - started, "captured_sites": len(studies)}
        results, failures = [], []
        for study, directory, work, store in zip(studies, directories, works, stores, strict=True):
            try:
                with _named(study) if len(studies) > 1 else nullcontext():
                    results.append(_finished(study, directory, work, store, running, timings))
            except InputError as error:
                if directory is None:
                    raise
                failures.append(error)
            if directory is not None and running.ranks.first:
                discard(directory)
        if failures:
            raise failures[0]
    return results


@contextmanager
def _named(study: PreparedStudy) -> Iterator[None]:
    """Errors and warnings within the context say which site they are of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            yield
        except InputError as error:
            raise InputError(f"{study.site.name}: {error}") from error
    for warning in caught:
        warnings.warn(f"{study.site.name}: {warning.message}", warning.category, stacklevel=2)


def _finished(
    study: PreparedStudy,
    directory: Path | None,
    work: Path,
    store: RowStore,
    running: Running,
    captured: Mapping[str, Any],
) -> Attribution:
    started = time.perf_counter()
    ranks = running.ranks
    with own_room(work, ranks) as room:
        ranked = rank(study, store, room, running.flips, running.progress, ranks)
    timings = {**captured, "scan_s": time.perf_counter() - started}
    return ranks.from_first(lambda: _saved(study, directory, ranked, running, timings))


def _saved(
    study: PreparedStudy,
    directory: Path | None,
    ranked: Ranked,
    running: Running,
    timed: Mapping[str, Any],
) -> Attribution:
    started = time.perf_counter()
    result = _result(study, ranked)
    found = _first_order(study, result, running)
    timings = {**timed, "check_s": time.perf_counter() - started}
    result.metadata.update(
        {**running.metadata, **result.metadata, "first_order": found, "timings": timings}
    )
    if directory is not None:
        result.save(directory)
    return result


def _result(study: PreparedStudy, ranked: Ranked) -> Attribution:
    top, effects = ranked.top, ranked.effects
    latents = top.latents.tolist()
    dominant = [
        token.describe(study.tokenizer, latents)
        for token in dominant_tokens(study.encoded, effects.per_token, effects.norms)
    ]
    warn_of_sinks(dominant, len(latents))
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
            "significance": ranked.significance.record,
        },
        lens=lens_if_possible(study.model, study.tokenizer, study.decoder, top.latents),
        all_scores=ranked.all_scores,
        token_effects=token_effects(study.tokenizer, study.encoded, effects.per_token),
        directions=effects.directions.result(study.baseline.mean),
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
        },
        "sinks": study.left_out.as_dict(),
        "completions": ways_counted(study.encoded),
        "mean_losses": {"positive": positive, "negative": negative},
        "certified": certified,
        **({} if study.by_latents is None else {"latent_score": study.by_latents.describe()}),
    }
