"""The k best of a stream of scores: in C++ on the CPU, in torch or by a Triton kernel anywhere.

Order, everywhere: score descending, latent ascending among equal scores (−0.0 equals 0.0). NaN
never enters the ranking and is counted; ±inf are ordinary values.
"""

from __future__ import annotations

import math
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from deltalens.engine.numerics.extension import cpu_extension

LEAST_SLACK = 1024
TopKPath = Literal["streaming", "kernel", "whole"]


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


class QueriesTopK(Protocol):
    """The k best of every query."""

    def push(self, scores: Tensor, start: int) -> None:
        """Add ``scores`` [queries, n] of the latents ``start … start + n - 1``."""

    def results(self) -> list[tuple[Tensor, Tensor]]:
        """Scores and latents (int64) of each query's best, ranked."""


def queries_topk(k: int, queries: int, path: TopKPath) -> QueriesTopK:
    """A ranking for each query on a path of :func:`deltalens.engine.cost.planner.topk_path`.

    "streaming" takes scores of any floating dtype, "kernel" and "whole" take float32 and latents
    below 2³².
    """
    if path == "streaming":
        return SeparateTopK(k, queries)
    if path == "whole":
        return JointTopK(WholeTopK(k, queries))
    from deltalens.kernels import StreamingTopK as KernelTopK

    return JointTopK(KernelTopK(k, queries))


class SeparateTopK:
    """One :class:`StreamingTopK` per query."""

    def __init__(self, k: int, queries: int) -> None:
        self._rankings = [StreamingTopK(k) for _ in range(queries)]

    def push(self, scores: Tensor, start: int) -> None:
        for ranking, of_query in zip(self._rankings, scores, strict=True):
            ranking.push(of_query, start)

    def results(self) -> list[tuple[Tensor, Tensor]]:
        return [ranking.result() for ranking in self._rankings]


class _Joint(Protocol):
    def push(self, scores: Tensor, start: int) -> None: ...

    def result(self) -> tuple[Tensor, Tensor]: ...


class JointTopK:
    """All queries in one ranking, which pads those that have less than k with NaN."""

    def __init__(self, ranking: _Joint) -> None:
        self._ranking = ranking

    def push(self, scores: Tensor, start: int) -> None:
        self._ranking.push(scores, start)

    def results(self) -> list[tuple[Tensor, Tensor]]:
        scores, latents = self._ranking.result()
        ranked = (~scores.isnan()).sum(1).tolist()
        pairs = zip(scores, latents, ranked, strict=True)
        return [(of_query[:count], places[:count]) for of_query, places, count in pairs]


_LEAST_KEY = torch.iinfo(torch.int64).min


class WholeTopK:
    """``torch.topk`` of the best so far and a whole tile, for float32 scores [queries, n].

    Nothing waits for the device before :meth:`result`. A key orders (score descending, latent
    ascending) as one int64, so that ties are settled; NaN has the least key.
    """

    def __init__(self, k: int, queries: int) -> None:
        self._k = k
        self._queries = queries
        self._best: Tensor | None = None  # int64 [queries, ≤ k], descending

    def push(self, scores: Tensor, start: int) -> None:
        if scores.dtype != torch.float32 or scores.shape[0] != self._queries:
            raise ValueError(
                f"scores must be float32 [{self._queries}, n], got {scores.dtype} "
                f"{tuple(scores.shape)}"
            )
        if start < 0 or start + scores.shape[1] > 1 << 32:
            raise ValueError(f"latents must be in 0 … 2**32 - 1, got {start} + {scores.shape[1]}")
        keys = _keys(scores, start)
        if self._best is not None:
            keys = torch.cat([self._best, keys], 1)
        self._best = keys.topk(min(self._k, keys.shape[1]), dim=1).values

    def result(self) -> tuple[Tensor, Tensor]:
        """Scores float32 and latents int64, [queries, min(k, pushed)] each; NaN where none."""
        if self._best is None:
            return torch.empty(self._queries, 0), torch.empty(self._queries, 0, dtype=torch.int64)
        rank = self._best >> 32
        bits = rank ^ ((rank >> 31) & 0x7FFFFFFF)  # of the least key: those of NaN
        return bits.int().view(torch.float32), 0xFFFFFFFF - (self._best & 0xFFFFFFFF)


def _keys(scores: Tensor, start: int) -> Tensor:
    """int64 [queries, n]: the score's bits made monotonic above, 2³² − 1 − latent below."""
    bits = (scores + 0.0).view(torch.int32).long()  # −0.0 becomes 0.0
    rank = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    latents = torch.arange(start, start + scores.shape[1], device=scores.device)
    return ((rank << 32) | (0xFFFFFFFF - latents)).masked_fill(scores.isnan(), _LEAST_KEY)
