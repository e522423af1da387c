"""What a tile tells of its latents: intervals that hold their keys."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from deltalens.engine.numerics.precision import SMALLEST_NORMAL, gamma
from deltalens.engine.problem import Problem
from deltalens.engine.scan.tiles import Tile, score_tile, too_long
from deltalens.engine.tile import Scorer
from deltalens.engine.topk.ranking import Ranking

_PRESENCE_ROWS = 8192


@dataclass(frozen=True)
class Search:
    """The k best latents of each of a problem's queries are looked for."""

    problem: Problem
    k: int
    ranking: Ranking
    normalize: bool


def intervals(search: Search, scorer: Scorer, tile: Tile) -> tuple[Tensor, Tensor]:
    """Lower and upper ends of the keys, fp64 [queries, n]; NaN for rows that cannot rank."""
    scored = score_tile(scorer, tile.rows, tile.norms, search.normalize)
    keys = search.ranking.key(scored.scores)
    lower, upper = keys - scored.error, keys + scored.error
    # A finite row whose fp32 score overflowed is always rescored.
    unknown = ~(lower.isfinite() & upper.isfinite())
    if search.problem.reduction != "sum":  # in which what overflowed may be dropped
        unknown = unknown | too_long(tile)
    lower = lower.masked_fill(unknown, -torch.inf)
    upper = upper.masked_fill(unknown, torch.inf)
    if search.ranking.present_only:
        _limit_to_present(search.problem, tile, lower, upper)
    # Filling by a mask, unlike indexing with one, does not wait for a GPU.
    return lower.masked_fill(~tile.finite, torch.nan), upper.masked_fill(~tile.finite, torch.nan)


def _limit_to_present(problem: Problem, tile: Tile, lower: Tensor, upper: Tensor) -> None:
    """Drop absent latents; those within rounding of zero presence wait for fp64."""
    assert problem.presence is not None
    directions = problem.presence.float()
    parts = tile.rows.split(_PRESENCE_ROWS)  # so that their fp32 copy stays small
    presence = torch.cat([directions @ part.float().T for part in parts], 1).double()
    slack = gamma(tile.rows.shape[1] + 2, torch.float32) * tile.norms + tile.rows.shape[
        1
    ] * SMALLEST_NORMAL[torch.float32] * (1 + tile.norms)
    bound = problem.presence.norm(dim=1)[:, None] * slack + slack
    upper.masked_fill_(presence < -bound, torch.nan)
    lower.masked_fill_(presence < -bound, torch.nan)
    lower.masked_fill_(presence.abs() <= bound, -torch.inf)
