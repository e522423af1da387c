"""What several processes keep of their parts of a scan, put together as one scan would keep it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

Ends = tuple[Tensor, Tensor]  # fp64 [n] in ranking order, and their latents int64 [n]


class Kept(NamedTuple):
    """The latents of a query that may be among its k best, int64 [c] ascending.

    complete: whether none that may matter was dropped; lower, upper: the ends of their intervals,
    fp64 [c], as they were pushed or just outside, and −∞ for a lower one that is not among the k
    largest; threshold: the k-th largest lower end, which upper ends had to reach.
    """

    latents: Tensor
    complete: bool
    lower: Tensor
    upper: Tensor
    threshold: float


class Held(NamedTuple):
    """Of each query: the largest lower ends, ≤ k, and the largest upper ends, ≤ room. ``seen``
    latents were pushed."""

    lower: list[Ends]
    upper: list[Ends]
    seen: int


def merged_candidates(parts: Sequence[Held], k: int, room: int) -> list[Kept]:
    """:meth:`Band.candidates` of a band to which all was pushed that the ``parts`` have seen.

    Each of the k best is among the k best of its part, and likewise of the ``room`` best.
    """
    seen = sum(part.seen for part in parts)
    lowers = zip(*(part.lower for part in parts), strict=True)
    uppers = zip(*(part.upper for part in parts), strict=True)
    return [
        kept(_merged(lower, k), _merged(upper, room), k, seen <= room)
        for lower, upper in zip(lowers, uppers, strict=True)
    ]


def kept(lower: Ends, upper: Ends, k: int, everything: bool) -> Kept:
    """From the largest ends of a query; ``everything``: whether those are all upper ends."""
    ends, at = lower
    threshold = float(ends[k - 1]) if len(ends) >= k else -math.inf
    inside = upper[0] >= threshold
    latents, order = upper[1][inside].sort()
    lowers = torch.full(latents.shape, -math.inf, dtype=torch.float64, device=latents.device)
    if len(latents):
        place = torch.searchsorted(latents, at).clamp_(max=len(latents) - 1)
        there = latents[place] == at
        lowers[place[there]] = ends[there].double()
    complete = everything or not bool(inside.all())
    return Kept(latents, complete, lowers, upper[0][inside][order].double(), threshold)


def _merged(parts: Sequence[Ends], most: int) -> Ends:
    latents, by_latent = torch.cat([latents for _, latents in parts]).sort()
    ends = torch.cat([ends for ends, _ in parts])[by_latent]
    best = ends.sort(descending=True, stable=True).indices[:most]
    return ends[best], latents[best]
