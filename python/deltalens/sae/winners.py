"""The latents that win a token's competition, kept as a running best over tiles of latents."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Winners(NamedTuple):
    """What every token keeps: before = u [tokens, k], latents int64 [tokens, k]."""

    before: Tensor
    latents: Tensor


def keep_largest(best: Winners | None, before: Tensor, start: int, k: int) -> Winners:
    """The k largest of what ``best`` holds and of u [tokens, n] of latents from ``start`` on.

    Of equal values the smaller latents win, unless they are negative, which no latent shows.
    """
    here = torch.arange(start, start + before.shape[1], device=before.device)
    found = _largest(before, here.expand_as(before), k)
    if best is None:
        return found
    values = torch.cat([best.before, found.before], dim=1)
    return _largest(values, torch.cat([best.latents, found.latents], dim=1), k)


def _largest(values: Tensor, latents: Tensor, k: int) -> Winners:
    top, at = values.topk(min(k + 1, values.shape[1]), dim=1)
    if top.shape[1] > k:
        tied = (top[:, k - 1] == top[:, k]) & (top[:, k] > 0)
        top, at = top[:, :k], at[:, :k]
        if bool(tied.any()):
            at[tied] = _ordered(values[tied], latents[tied])[:, :k]
            top = values.gather(1, at)
    return Winners(top, latents.gather(1, at))


def _ordered(values: Tensor, latents: Tensor) -> Tensor:
    """Positions [tokens, n] by value, descending, equal ones by latent."""
    by_latent = latents.argsort(dim=1)
    by_value = values.gather(1, by_latent).argsort(dim=1, descending=True, stable=True)
    return by_latent.gather(1, by_value)


def keep_largest_of_groups(
    best: Winners | None, before: Tensor, start: int, k: int, size: int
) -> Winners:
    """As :func:`keep_largest`, for the largest of each of k groups of ``size`` latents."""
    if best is None:
        best = Winners(
            before.new_full((len(before), k), -torch.inf),
            torch.zeros(len(before), k, dtype=torch.int64, device=before.device),
        )
    stop = start + before.shape[1]
    for group in range(start // size, (stop - 1) // size + 1):
        first, last = max(start, group * size), min(stop, (group + 1) * size)
        top, at = before[:, first - start : last - start].max(dim=1)
        better = top > best.before[:, group]
        best.before[:, group] = torch.where(better, top, best.before[:, group])
        best.latents[:, group] = torch.where(better, at + first, best.latents[:, group])
    return best


def spread(winners: Winners, start: int, n: int) -> Tensor:
    """Their latents z = relu(u) as columns [tokens, n] of latents ``start … start + n - 1``."""
    at = winners.latents - start
    here = (at >= 0) & (at < n)
    z = winners.before.new_zeros(len(at), n)
    return z.scatter_add_(1, at.clamp(0, n - 1), winners.before.relu() * here)


def pick(winners: Winners, latents: Tensor) -> Tensor:
    """Their z of the given latents int64 [c], which may repeat: [tokens, c]."""
    sought, column = latents.unique(return_inverse=True)
    at = torch.searchsorted(sought, winners.latents).clamp(max=len(sought) - 1)
    here = sought[at] == winners.latents
    z = winners.before.new_zeros(len(at), len(sought))
    return z.scatter_add_(1, at, winners.before.relu() * here)[:, column]
