"""From the captured rows of studies to their ranked latents and p-values."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from deltalens.engine import CrossMoment, TopLatents
from deltalens.engine.problem import Problem, moment_problem
from deltalens.engine.resampling.shared import SharedReads, shared_reads
from deltalens.engine.resampling.tile_sums import TileSums
from deltalens.engine.resampling.token_sums import TokenSums
from deltalens.engine.scan import Search, full_scores, top_latents_together
from deltalens.engine.trust.implementations import agreed_impl
from deltalens.ranks.ranks import ALONE, Ranks
from deltalens.study.latents import check_found, latent_rows, unit
from deltalens.study.ranking.effects import Found, Ranked, pair_effects, study_moment
from deltalens.study.ranking.latent_score import rank_by_latents
from deltalens.study.ranking.prepared import PreparedStudy
from deltalens.study.running.row_store import RowStore
from deltalens.study.significance import Tested, assess_together
from deltalens.study.significance.study_tokens import study_tokens

_NONFINITE = "W_dec .* rows with NaN or infinity"


@dataclass(frozen=True)
class CapturedStudy:
    """A study and its rows; ``work`` has room for files as large as they are."""

    study: PreparedStudy
    store: RowStore
    work: Path


def rank(
    captured: Sequence[CapturedStudy], flips: int, progress: bool, ranks: Ranks = ALONE
) -> list[Ranked]:
    """The top latents of each of several studies with one decoder at one site.

    The decoder is scanned once for the rankings of all and once for their p-values (by latents'
    own activations for each); each study is to the bit what it is by itself. Memory is that of a
    study by itself, d_model² and a decoder tile, times their number.

    Several processes each add up all rows, in the same order, and scan a range of latents; all of
    them find the same.

    Raises :class:`InputError` for NaN or infinity in decoder rows.
    """
    captured = [_agreed(one, ranks) for one in captured]
    first = captured[0].study
    with warnings.catch_warnings(), shared_reads(first.decoder) as shared:
        warnings.filterwarnings("ignore", _NONFINITE)  # an error here
        if first.by_latents is None:
            found = _by_direction(captured, shared, ranks)
        else:
            found = [_by_latents(one, ranks) for one in captured]
        tested = [
            Tested(
                each.tiles,
                each.effects.difference,
                each.top.latents,
                one.study.decoder.n_latents,
                one.study.options.order,
            )
            for one, each in zip(captured, found, strict=True)
        ]
        significance = assess_together(tested, flips, progress=progress, ranks=ranks)
    return [
        Ranked(each.top, each.effects, each.all_scores, of_study)
        for each, of_study in zip(found, significance, strict=True)
    ]


def _agreed(one: CapturedStudy, ranks: Ranks) -> CapturedStudy:
    """With an implementation that all processes take: they meet in the same places."""
    study = one.study
    impl = agreed_impl(study.options.impl, study.scan_device, ranks)
    return replace(one, study=replace(study, options=replace(study.options, impl=impl)))


def _by_direction(
    captured: Sequence[CapturedStudy], shared: SharedReads, ranks: Ranks
) -> list[Found]:
    moments = [_moment(one) for one in captured]
    problems = [
        _problem(one.study, moment, ranks) for one, moment in zip(captured, moments, strict=True)
    ]
    tops = top_latents_together(
        [_search(one.study, problem) for one, problem in zip(captured, problems, strict=True)]
    )
    return [
        _found(one, problem, top, moment.presence_direction, shared, ranks)
        for one, problem, (top,), moment in zip(captured, problems, tops, moments, strict=True)
    ]


def _moment(one: CapturedStudy) -> CrossMoment:
    study = one.study
    return study_moment(one.store, len(study.pairs), study.mean, study.scan_device)


def _problem(study: PreparedStudy, moment: CrossMoment, ranks: Ranks) -> Problem:
    return moment_problem([moment], study.decoder, study.options.impl).among(ranks)


def _search(study: PreparedStudy, problem: Problem) -> Search:
    options = study.options
    ranking = replace(options.order, present_only=options.present_only)
    return Search(problem, options.k, ranking, options.normalize)


def _found(
    one: CapturedStudy,
    problem: Problem,
    top: TopLatents,
    presence: Tensor,
    shared: SharedReads,
    ranks: Ranks,
) -> Found:
    study, options = one.study, one.study.options
    check_found(top)
    directions = latent_rows(study.decoder, top.latents)
    directions = unit(directions) if options.normalize else directions
    every = None
    if options.save_scores:
        every = full_scores(problem, normalize=options.normalize)[0].cpu()
    effects = pair_effects(one.store, directions, study.mean)
    return Found(top, effects, every, _pair_sums(one, presence, shared, ranks))


def _pair_sums(
    one: CapturedStudy, presence: Tensor, shared: SharedReads, ranks: Ranks
) -> Iterator[TileSums]:
    """Every latent's Δ of every pair; nothing is read before the first is asked for."""
    study, options = one.study, one.study.options
    source, offsets = study_tokens(one.store, study.mean, one.work, study.scan_device)
    sums = TokenSums(
        source,
        offsets,
        study.decoder,
        options.impl,
        options.normalize,
        presence if options.present_only else None,
        ranks,
    )
    yield from sums.tiles(shared.reader())


def _by_latents(one: CapturedStudy, ranks: Ranks) -> Found:
    study = one.study
    assert study.by_latents is not None
    return rank_by_latents(
        study.by_latents, one.store, study.options, one.work, study.scan_device, ranks
    )
