"""How far a latent's rank depends on which pairs there are."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

RESAMPLES = 200
LEVEL = 0.95
_SEED = 1


class RankInterval(NamedTuple):
    """The central 95 % of a latent's ranks over resampled pairs, fp64 [k] each, 1 the best."""

    low: Tensor
    high: Tensor


def resampling_weights(pairs: int) -> Tensor:
    """fp64 [RESAMPLES, pairs]: how often each pair was drawn, with replacement, over the number of
    pairs (B. Efron, 1979); always the same."""
    draw = torch.Generator().manual_seed(_SEED)
    drawn = torch.randint(pairs, (RESAMPLES, pairs), generator=draw)
    ones = torch.ones(drawn.shape, dtype=torch.float64)
    return torch.zeros_like(ones).scatter_add_(1, drawn, ones) / pairs


def rank_interval(keys: Tensor, above: Tensor) -> RankInterval:
    """keys: fp64 [k, resamples] of the ranked latents; above: int64, how many others beat each."""
    order = keys.argsort(dim=0, descending=True, stable=True)
    places = torch.arange(len(keys))[:, None].expand_as(order)
    among = torch.empty_like(order).scatter_(0, order, places)
    ranks = (1 + among + above).double()
    tail = (1 - LEVEL) / 2
    low = ranks.quantile(tail, dim=1, interpolation="lower")
    return RankInterval(low, ranks.quantile(1 - tail, dim=1, interpolation="higher"))
