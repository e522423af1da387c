"""Family-wise p-values and rank intervals of a study's ranked latents, in one pass over all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from deltalens.engine.resampling.resample import (
    LISTED,
    Resampled,
    Resampling,
    Reweightings,
    resample_together,
)
from deltalens.engine.resampling.tile_sums import TileSums
from deltalens.engine.topk.ranking import Ranking
from deltalens.lm.progress import Progress
from deltalens.ranks.ranks import ALONE, Ranks
from deltalens.study.significance.flips import SEED, SignFlips, sign_flips
from deltalens.study.significance.sentence import LEVEL, stands_out_sentence
from deltalens.study.significance.stability import (
    RESAMPLES,
    rank_interval,
    resampling_weights,
)

FLIPS = 1000


@dataclass(frozen=True)
class Significance:
    """fp64 [k] each, NaN where nothing was tested; ``record`` is for the run's metadata."""

    p_value: Tensor
    rank_low: Tensor
    rank_high: Tensor
    record: dict[str, Any]


class Tested(NamedTuple):
    """What :func:`assess` takes of one study."""

    tiles: Iterable[TileSums]
    per_pair: Tensor
    latents: Tensor
    n_latents: int
    ranking: Ranking


def assess(
    tiles: Iterable[TileSums],
    per_pair: Tensor,
    latents: Tensor,
    n_latents: int,
    ranking: Ranking,
    flips: int = FLIPS,
    *,
    progress: bool = False,
    ranks: Ranks = ALONE,
) -> Significance:
    """The largest statistic over all latents, under every sign flip of the pairs.

    tiles: Δ of every latent and pair, of which each of ``ranks`` has a part; per_pair: fp64
    [pairs, k], those of the ranked ``latents`` int64 [k]. Positive and negative completions of a
    pair are exchangeable where nothing tells them apart, so swapping them gives studies that are as
    likely (A. M. Winkler et al., 2014); the largest statistic over all latents keeps the
    family-wise error (P. H. Westfall and S. S. Young, 1993). Nothing is tested with ``flips`` 0 or
    a single pair, and no tile is read.
    """
    study = Tested(tiles, per_pair, latents, n_latents, ranking)
    (found,) = assess_together([study], flips, progress=progress, ranks=ranks)
    return found


def assess_together(
    studies: Sequence[Tested], flips: int, *, progress: bool = False, ranks: Ranks = ALONE
) -> list[Significance]:
    """:func:`assess` of several, which go through their latents in step; each has the bits that it
    has by itself."""
    drawn = {
        number: _drawn(study, flips)
        for number, study in enumerate(studies)
        if flips and len(study.per_pair) > 1
    }
    with Progress(progress, "latents", sum(studies[n].n_latents for n in drawn)) as bar:
        works = [
            Resampling(_watched(studies[n].tiles, bar), given, studies[n].ranking)
            for n, (_, given) in drawn.items()
        ]
        resampled = dict(zip(drawn, resample_together(works, ranks), strict=True))
    return [
        _significance(study, *drawn[number], resampled[number], flips)
        if number in drawn
        else untested(*_sizes(study), flips)
        for number, study in enumerate(studies)
    ]


def _sizes(study: Tested) -> tuple[int, int, int]:
    pairs, k = study.per_pair.shape
    return pairs, k, study.n_latents


def _drawn(study: Tested, flips: int) -> tuple[SignFlips, Reweightings]:
    pairs = len(study.per_pair)
    patterns = sign_flips(pairs, flips, two_sided=study.ranking.absolute)
    weights = resampling_weights(pairs)
    keys = study.ranking.key(study.per_pair.T @ weights.T)
    return patterns, Reweightings(patterns.signs, weights, study.latents.cpu(), keys)


def _significance(
    study: Tested, patterns: SignFlips, given: Reweightings, found: Resampled, flips: int
) -> Significance:
    p_value = patterns.p_values(found.own, found.largest)
    low, high = rank_interval(given.keys, found.above)
    record = _record(patterns, found, p_value, len(study.per_pair), study.n_latents, flips)
    return Significance(p_value, low, high, record)


def _watched(tiles: Iterable[TileSums], bar: Progress) -> Iterator[TileSums]:
    for tile in tiles:
        yield tile
        bar.advance(len(tile.sums))


def untested(pairs: int, k: int, n_latents: int, flips: int) -> Significance:
    """Of a study that was not tested."""
    nothing = torch.full((k,), torch.nan, dtype=torch.float64)
    record = {"flips": 0, "pairs": pairs, "latents": n_latents, "asked": flips}
    return Significance(nothing, nothing, nothing, _with_sentence(record))


def _record(
    patterns: SignFlips, found: Resampled, p_value: Tensor, pairs: int, n_latents: int, flips: int
) -> dict[str, Any]:
    of_all = patterns.p_values(found.strongest, found.largest)
    return _with_sentence(
        {
            "flips": len(patterns.signs) + patterns.exact,
            "asked": flips,
            "exact": patterns.exact,
            "seed": SEED,
            "resamples": RESAMPLES,
            "pairs": pairs,
            "latents": n_latents,
            "ranked": len(p_value),
            "level": LEVEL,
            "smallest_possible": patterns.smallest_p,
            "smallest": float(p_value.min()),
            "stand_out": int((p_value <= LEVEL).sum()),
            "stand_out_of_all": int((of_all <= LEVEL).sum()),
            "counted_to": LISTED,
        }
    )


def _with_sentence(record: dict[str, Any]) -> dict[str, Any]:
    return {**record, "sentence": stands_out_sentence(record)}
