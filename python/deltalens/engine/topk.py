"""The k best of a stream of scores, on the CPU in C++ or on any device in torch.

Order, everywhere: score descending, latent ascending among equal scores (−0.0 equals 0.0). NaN
never enters the ranking and is counted; ±inf are ordinary values.
"""

from __future__ import annotations

import math
from typing import Any, Protocol

import torch
from torch import Tensor

from deltalens.engine.extension import cpu_extension

LEAST_SLACK = 1024


class StreamingTopK:
    """The ``k`` best of scores pushed tile by tile, in memory O(k).

    The first push decides where the ranking lives: CPU scores go to the compiled extension when
    there is one, all others are ranked by torch on their own device. Every latent is pushed at
    most once; the order of the tiles does not matter.
    """

    def __init__(self, k: int) -> None:
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        self._k = k
        self._ranking: _Ranking | None = None

    def push(self, scores: Tensor, start: int) -> None:
        """Add floating-point ``scores`` [n] of the latents ``start … start + n - 1``."""
        if self._ranking is None:
            self._ranking = _ranking_for(scores.device, self._k)
        self._ranking.push(scores.detach(), start)

    def result(self) -> tuple[Tensor, Tensor]:
        """Scores (float64) and latents (int64) of the best, min(k, pushed) of each, ranked."""
        if self._ranking is None:
            return torch.empty(0, dtype=torch.float64), torch.empty(0, dtype=torch.int64)
        return self._ranking.result()

    @property
    def threshold(self) -> float:
        """The score of the k-th best, −inf while there are fewer than k."""
        return -math.inf if self._ranking is None else self._ranking.threshold

    @property
    def nan_count(self) -> int:
        """How many NaN scores were pushed."""
        return 0 if self._ranking is None else self._ranking.nan_count


class _Ranking(Protocol):
    def push(self, scores: Tensor, start: int) -> None: ...

    def result(self) -> tuple[Tensor, Tensor]: ...

    @property
    def threshold(self) -> float: ...

    @property
    def nan_count(self) -> int: ...


def _ranking_for(device: torch.device, k: int) -> _Ranking:
    extension = cpu_extension() if device.type == "cpu" else None
    return TorchTopK(k, device) if extension is None else CppTopK(extension.StreamingTopK(k))


class CppTopK:
    """The compiled ranking behind tensors; float16 and bfloat16 scores are widened exactly."""

    def __init__(self, ranking: Any) -> None:
        self._ranking = ranking

    def push(self, scores: Tensor, start: int) -> None:
        wide = scores if scores.dtype == torch.float64 else scores.to(torch.float32)
        self._ranking.push(wide.contiguous().numpy(), start)

    def result(self) -> tuple[Tensor, Tensor]:
        scores, latents = self._ranking.result()
        return torch.from_numpy(scores), torch.from_numpy(latents)

    @property
    def threshold(self) -> float:
        return self._ranking.threshold

    @property
    def nan_count(self) -> int:
        return self._ranking.nan_count


class TorchTopK:
    """The same ranking in torch: tiles are gated by the last cutoff and sorted now and then."""

    def __init__(self, k: int, device: torch.device) -> None:
        self._k = k
        self._capacity = k + max(k, LEAST_SLACK)
        self._scores = [torch.empty(0, dtype=torch.float64, device=device)]
        self._latents = [torch.empty(0, dtype=torch.int64, device=device)]
        self._held = 0
        self._cutoff: tuple[float, int] = (-math.inf, torch.iinfo(torch.int64).max)
        self._nans = torch.zeros((), dtype=torch.int64, device=device)

    def push(self, scores: Tensor, start: int) -> None:
        self._nans += scores.isnan().sum()
        score, latent = self._cutoff
        latents = torch.arange(start, start + scores.numel(), device=scores.device)
        # A Python scalar would be rounded to the dtype of the scores.
        cutoff = torch.tensor(score, dtype=torch.float64, device=scores.device).reshape(1)
        admitted = (scores > cutoff) | ((scores == cutoff) & (latents < latent))
        self._append(scores[admitted].double(), latents[admitted])

    def _append(self, scores: Tensor, latents: Tensor) -> None:
        if not latents.numel():
            return
        self._scores.append(scores)
        self._latents.append(latents)
        self._held += latents.numel()
        if self._held >= self._capacity:
            self._keep_best()

    def result(self) -> tuple[Tensor, Tensor]:
        self._keep_best()
        return self._scores[0], self._latents[0]

    @property
    def threshold(self) -> float:
        self._keep_best()
        return self._cutoff[0]

    @property
    def nan_count(self) -> int:
        return int(self._nans)

    def _keep_best(self) -> None:
        if len(self._scores) == 1:
            return
        latents, by_latent = torch.cat(self._latents).sort()
        scores = torch.cat(self._scores)[by_latent]
        # Adding 0.0 turns -0.0 into 0.0: radix sorts tell them apart.
        best = (scores + 0.0).sort(descending=True, stable=True).indices[: self._k]
        self._scores, self._latents = [scores[best]], [latents[best]]
        self._held = best.numel()
        if self._held == self._k:
            self._cutoff = (float(self._scores[0][-1]), int(self._latents[0][-1]))
