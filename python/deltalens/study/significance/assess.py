"""Family-wise p-values and rank intervals of a study's ranked latents, in one pass over all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from deltalens.engine.resampling.resample import LISTED, Resampled, Reweightings, resample
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
    pairs, k = per_pair.shape
    if not flips or pairs == 1:
        return untested(pairs, k, n_latents, flips)
    patterns = sign_flips(pairs, flips, two_sided=ranking.absolute)
    weights = resampling_weights(pairs)
    keys = ranking.key(per_pair.T @ weights.T)
    given = Reweightings(patterns.signs, weights, latents.cpu(), keys)
    found = resample(_watched(tiles, n_latents, progress), given, ranking, ranks)
    p_value = patterns.p_values(found.own, found.largest)
    low, high = rank_interval(keys, found.above)
    record = _record(patterns, found, p_value, pairs, n_latents, flips)
    return Significance(p_value, low, high, record)


def _watched(tiles: Iterable[TileSums], n_latents: int, shown: bool) -> Iterator[TileSums]:
    with Progress(shown, "latents", n_latents) as bar:
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
