"""What several processes keep of their parts of a scan, put together as one scan would keep it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Held(NamedTuple):
    """Of each query: the largest lower ends fp64 [≤ k]; the largest upper ends fp64 [≤ room] and
    their latents int64, in ranking order. ``seen`` latents were pushed."""

    lower: list[Tensor]
    upper: list[tuple[Tensor, Tensor]]
    seen: int


def merged_candidates(parts: Sequence[Held], k: int, room: int) -> list[tuple[Tensor, bool]]:
    """:meth:`Band.candidates` of a band to which all was pushed that the ``parts`` have seen.

    Each of the k best is among the k best of its part, and likewise of the ``room`` best.
    """
    seen = sum(part.seen for part in parts)
    lowers = [torch.cat(of_query) for of_query in zip(*(p.lower for p in parts), strict=True)]
    uppers = list(zip(*(part.upper for part in parts), strict=True))
    return [
        _candidates(_threshold(lower, k), upper, room, seen)
        for lower, upper in zip(lowers, uppers, strict=True)
    ]


def _threshold(lower: Tensor, k: int) -> float:
    return float(lower.topk(k).values[-1]) if len(lower) >= k else -math.inf


def _candidates(
    threshold: float, parts: Sequence[tuple[Tensor, Tensor]], room: int, seen: int
) -> tuple[Tensor, bool]:
    latents, by_latent = torch.cat([latents for _, latents in parts]).sort()
    upper = torch.cat([upper for upper, _ in parts])[by_latent]
    best = upper.sort(descending=True, stable=True).indices[:room]
    inside = upper[best] >= threshold
    return latents[best][inside].sort().values, seen <= room or not bool(inside.all())
