"""From the captured rows of a study to its ranked latents and their p-values."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from deltalens.engine.problem import moment_problem
from deltalens.engine.resampling.tile_sums import TileSums
from deltalens.engine.resampling.token_sums import TokenSums
from deltalens.engine.scan import full_scores, top_latents
from deltalens.ranks.ranks import ALONE, Ranks
from deltalens.study.latents import check_found, latent_rows, unit
from deltalens.study.ranking.effects import Found, Ranked, pair_effects, study_moment
from deltalens.study.ranking.latent_score import rank_by_latents
from deltalens.study.ranking.prepared import PreparedStudy
from deltalens.study.running.row_store import RowStore
from deltalens.study.significance import assess
from deltalens.study.significance.study_tokens import study_tokens


def rank(
    study: PreparedStudy,
    store: RowStore,
    work: Path,
    flips: int,
    progress: bool,
    ranks: Ranks = ALONE,
) -> Ranked:
    """The top latents of the rows in ``store``; ``work`` has room for files as large as they are.

    Several processes each add up all rows, in the same order, and scan a range of latents; all of
    them find the same.

    Raises :class:`InputError` for NaN or infinity in decoder rows.
    """
    by = _by_direction if study.by_latents is None else _by_latents
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # non-finite rows, an error here
        found = by(study, store, work, ranks)
        significance = assess(
            found.tiles,
            found.effects.difference,
            found.top.latents,
            study.decoder.n_latents,
            study.options.order,
            flips,
            progress=progress,
            ranks=ranks,
        )
    return Ranked(found.top, found.effects, found.all_scores, significance)


def _by_direction(study: PreparedStudy, store: RowStore, work: Path, ranks: Ranks) -> Found:
    mean, options = study.baseline.mean, study.options
    moment = study_moment(store, len(study.pairs), mean, study.scan_device)
    problem = replace(moment_problem([moment], study.decoder, options.impl), ranks=ranks)
    ranking = replace(options.order, present_only=options.present_only)
    (top,) = top_latents(problem, options.k, ranking, normalize=options.normalize)
    check_found(top)
    directions = latent_rows(study.decoder, top.latents)
    directions = unit(directions) if options.normalize else directions
    every = None
    if options.save_scores:
        every = full_scores(problem, normalize=options.normalize)[0].cpu()
    effects = pair_effects(store, directions, mean)
    tiles = _pair_sums(study, store, work, moment.presence_direction, ranks)
    return Found(top, effects, every, tiles)


def _pair_sums(
    study: PreparedStudy, store: RowStore, work: Path, presence: Tensor, ranks: Ranks
) -> Iterator[TileSums]:
    """Every latent's Δ of every pair; nothing is read before the first is asked for."""
    source, offsets = study_tokens(store, study.baseline.mean, work, study.scan_device)
    options = study.options
    sums = TokenSums(
        source,
        offsets,
        study.decoder,
        options.impl,
        options.normalize,
        presence if options.present_only else None,
        ranks,
    )
    yield from sums.tiles()


def _by_latents(study: PreparedStudy, store: RowStore, work: Path, ranks: Ranks) -> Found:
    assert study.by_latents is not None
    return rank_by_latents(study.by_latents, store, study.options, work, study.scan_device, ranks)
