"""Which latents win, and whether that is certain."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from deltalens.engine.numerics.precision import UNIT_ROUNDOFF


@dataclass(frozen=True)
class TopLatents:
    """The winners of a scan; unpacks as ``scores, latents``.

    scores: float32 [k], in ranking order; latents: int64 [k], equal scores by smaller index;
    error_bound: float64 [k], ``|scores − exact|`` never exceeds it, where exact is real arithmetic
    on the inputs as given; certified: whether the returned set provably is the exact one (false at
    a tie across the k-th place); nonfinite: int64, decoder rows holding NaN or infinity, which
    never rank.
    """

    scores: Tensor
    latents: Tensor
    error_bound: Tensor
    certified: bool
    nonfinite: Tensor

    def __iter__(self) -> Iterator[Tensor]:
        yield self.scores
        yield self.latents

    def __len__(self) -> int:
        return self.latents.shape[0]


@dataclass(frozen=True)
class Ranking:
    """The order of a scan: by a key that is larger for better latents."""

    largest: bool = True
    absolute: bool = False
    present_only: bool = False

    def key(self, scores: Tensor) -> Tensor:
        """The value to maximise, same shape as ``scores``."""
        if self.absolute:
            scores = scores.abs()
        return scores if self.largest else -scores


@dataclass(frozen=True)
class Candidates:
    """Latents that may belong to the top-k, with fp64 scores and the bounds of those."""

    latents: Tensor  # int64 [c]
    scores: Tensor  # fp64 [c]
    error: Tensor  # fp64 [c]
    complete: bool  # whether every latent outside is provably below the k-th place
    # fp64 [c], by how much scores that are equal may differ here; None for ``error``
    rounding: Tensor | None = None


def select(candidates: Candidates, k: int, ranking: Ranking, nonfinite: Tensor) -> TopLatents:
    """The best k candidates; fewer when there are fewer."""
    rounding = candidates.error if candidates.rounding is None else candidates.rounding
    order = _order(ranking.key(candidates.scores), rounding, candidates.latents)
    keys = ranking.key(candidates.scores)[order]
    error = candidates.error[order]
    certified = candidates.complete and _separated(keys, error, k)
    return _as_result(candidates, order[:k], certified, ranking, nonfinite)


def _order(keys: Tensor, error: Tensor, latents: Tensor) -> Tensor:
    """By key descending, where keys closer than their bounds count as tied and go by index.

    Equal decoder rows get fp64 scores that may differ in the last bit with their place in a
    matrix product; the bounds say that such a difference means nothing.
    """
    order = torch.argsort(keys, descending=True, stable=True)
    sorted_keys, sorted_error = keys[order], error[order]
    gaps = sorted_keys[:-1] - sorted_keys[1:]
    new_group = gaps > sorted_error[:-1] + sorted_error[1:]
    groups = torch.zeros(order.shape[0], dtype=torch.int64, device=keys.device)
    groups[1:] = new_group.cumsum(0)
    by_index = torch.argsort(latents[order], stable=True)
    return order[by_index[torch.argsort(groups[by_index], stable=True)]]


def _separated(keys: Tensor, error: Tensor, k: int) -> bool:
    """Whether every interval of the first k lies above every interval of the rest."""
    if keys.shape[0] <= k:
        return True
    return bool((keys[:k] - error[:k]).min() > (keys[k:] + error[k:]).max())


def _as_result(
    candidates: Candidates, chosen: Tensor, certified: bool, ranking: Ranking, nonfinite: Tensor
) -> TopLatents:
    latents = candidates.latents[chosen]
    exact = candidates.scores[chosen]
    scores = exact.float()
    # The returned order is that of the returned numbers: float32 descending, then index.
    by_index = torch.argsort(latents, stable=True)
    final = by_index[torch.argsort(ranking.key(scores[by_index]), descending=True, stable=True)]
    rounding = (scores.double() - exact).abs() + UNIT_ROUNDOFF[torch.float64] * exact.abs()
    bound = candidates.error[chosen] + rounding
    return TopLatents(scores[final], latents[final], bound[final], certified, nonfinite)
