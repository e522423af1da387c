"""The k best of scores that arrive tile by tile, for many queries at once, on the device."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

# A key orders (score descending, latent ascending) as one int64: the score's bits made monotonic
# above, 2³² − 1 − latent below. NaN gets the least key, which no number has.
LEAST = -(1 << 63)
_BLOCK = 1024
_ROOM = 128  # candidates kept per block once there is a threshold


@triton.jit
def keys_of(scores, latents):
    """int64, ordered as the module says."""
    bits = tl.where(scores == 0.0, 0.0, scores).to(tl.int32, bitcast=True)  # −0.0 equals 0.0
    rank = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).to(tl.int64)
    keys = (rank << 32) | (0xFFFFFFFF - latents)
    return tl.where(scores == scores, keys, -(1 << 63))


@triton.jit(do_not_specialize=["n", "start"])
def _gate(
    SCORES,
    THRESHOLD,
    KEYS,
    COUNTS,
    n,
    start,
    stride_sq,
    stride_kq,
    stride_cq,
    ROOM: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """KEYS[q, b, :COUNTS[q, b]] = keys above THRESHOLD[q] in block b, the first ROOM of them.

    SCORES [Q, n] fp32; THRESHOLD [Q] int64; KEYS [Q, blocks, ROOM] filled with the least key;
    COUNTS [Q, blocks] int32, also beyond ROOM. Latents are start … start + n - 1.
    """
    block = tl.program_id(0).to(tl.int64)
    query = tl.program_id(1).to(tl.int64)
    offs = block * BLOCK + tl.arange(0, BLOCK)
    scores = tl.load(SCORES + query * stride_sq + offs, mask=offs < n, other=float("nan"))
    keys = keys_of(scores, start + offs)  # [BLOCK]
    above = keys > tl.load(THRESHOLD + query)
    place = tl.cumsum(above.to(tl.int32), axis=0) - 1
    tl.store(COUNTS + query * stride_cq + block, tl.sum(above.to(tl.int32), axis=0))
    target = KEYS + query * stride_kq + block * ROOM + place
    tl.store(target, keys, mask=above & (place < ROOM))


class StreamingTopK:
    """``torch.cat(tiles, 1).topk(k)`` for float32 tiles [queries, n], in memory O(tile + k).

    A tile's scores pass a gate first: only keys above the k-th best so far are collected, per block
    and in the order of the latents, so nothing depends on the order in which programs run. When a
    block has more of them than there is room for, the tile is gated again with room for all. The
    rest is an exact merge. Equal scores go to the smaller latent (−0.0 equals 0.0); NaN never ranks
    and is counted; latents are below 2³².
    """

    def __init__(self, k: int, queries: int = 1) -> None:
        if k < 1 or queries < 1:
            raise ValueError(f"k and queries must be at least 1, got {k} and {queries}")
        self._k = k
        self._queries = queries
        self._best: Tensor | None = None  # int64 [queries, ≤ k], descending
        self._nans = torch.zeros(queries, dtype=torch.int64)

    def push(self, scores: Tensor, start: int) -> None:
        """Add float32 ``scores`` [queries, n] of the latents ``start … start + n - 1``."""
        if scores.ndim != 2 or scores.shape[0] != self._queries or scores.dtype != torch.float32:
            raise ValueError(
                f"scores must be float32 [{self._queries}, n], got {scores.dtype} "
                f"{tuple(scores.shape)}"
            )
        if start < 0 or start + scores.shape[1] > 1 << 32:
            raise ValueError(f"latents must be in 0 … 2**32 - 1, got {start} + {scores.shape[1]}")
        if scores.shape[1] == 0:
            return
        scores = scores.contiguous()
        if self._best is None:
            self._best = torch.empty(self._queries, 0, dtype=torch.int64, device=scores.device)
            self._nans = self._nans.to(scores.device)
        self._nans += scores.isnan().sum(1)
        candidates = self._gated(scores, start)
        merged = torch.cat([self._best, candidates], 1)
        self._best = merged.topk(min(self._k, merged.shape[1]), dim=1).values

    def _gated(self, scores: Tensor, start: int) -> Tensor:
        """Keys [queries, c] among which are all that may rank."""
        assert self._best is not None
        if self._best.shape[1] < self._k:
            threshold = torch.full_like(self._nans, LEAST)
            return _run_gate(scores, threshold, start, _BLOCK)[0]
        threshold = self._best[:, -1].contiguous()
        keys, most = _run_gate(scores, threshold, start, _ROOM)
        return keys if most <= _ROOM else _run_gate(scores, threshold, start, _BLOCK)[0]

    def result(self) -> tuple[Tensor, Tensor]:
        """Scores float32 and latents int64, [queries, min(k, most numbers ranked)] each.

        Where a query ranked fewer the scores end in NaN.
        """
        if self._best is None:
            return torch.empty(self._queries, 0), torch.empty(self._queries, 0, dtype=torch.int64)
        ranked = (self._best != LEAST).sum(1).max()
        return unpacked(self._best[:, : int(ranked)])

    @property
    def nan_count(self) -> Tensor:
        """How many NaN scores were pushed, int64 [queries]."""
        return self._nans


def _run_gate(scores: Tensor, threshold: Tensor, start: int, room: int) -> tuple[Tensor, int]:
    """Collected keys [queries, blocks · room], and the largest number that a block had."""
    queries, n = scores.shape
    blocks = triton.cdiv(n, _BLOCK)
    keys = torch.full((queries, blocks * room), LEAST, dtype=torch.int64, device=scores.device)
    counts = torch.empty(queries, blocks, dtype=torch.int32, device=scores.device)
    _gate[(blocks, queries)](
        scores,
        threshold,
        keys,
        counts,
        n,
        start,
        scores.stride(0),
        keys.stride(0),
        counts.stride(0),
        ROOM=room,
        BLOCK=_BLOCK,
    )
    return keys, int(counts.max())


def unpacked(keys: Tensor) -> tuple[Tensor, Tensor]:
    """Scores float32 and latents int64 of keys; the least key has NaN."""
    rank = keys >> 32
    bits = rank ^ ((rank >> 31) & 0x7FFFFFFF)  # of the least key: those of NaN
    return bits.to(torch.int32).view(torch.float32), 0xFFFFFFFF - (keys & 0xFFFFFFFF)
