"""The largest values of every token, of values that arrive tile by tile, on the device."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from deltalens.kernels.streaming_topk import LEAST, keys_of, unpacked

_BLOCK = 128  # values of a token that are looked at together


@triton.jit(do_not_specialize=["n", "start"])
def _token_winners(
    P,
    KEYS,
    COUNTS,
    THRESHOLDS,
    n,
    start,
    stride_pt,
    stride_kt,
    KEEP: tl.constexpr,
    ROOM: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Append to KEYS[t, :COUNTS[t]] the keys of P[t] above THRESHOLDS[t].

    P [T, n] fp32 of latents start … start + n - 1; KEYS [T, ROOM] int64; COUNTS [T] int32;
    THRESHOLDS [T] int64. Where room for a block's is short the KEEP largest stay, and the least of
    them is the threshold from then on; ROOM >= KEEP + BLOCK.
    """
    token = tl.program_id(0).to(tl.int64)
    slots = tl.arange(0, ROOM)
    row = KEYS + token * stride_kt
    count = tl.load(COUNTS + token)
    threshold = tl.load(THRESHOLDS + token)
    for first in range(0, n, BLOCK):
        offs = first + tl.arange(0, BLOCK)
        values = tl.load(P + token * stride_pt + offs, mask=offs < n, other=float("nan"))
        keys = keys_of(values, start + offs.to(tl.int64))  # [BLOCK]
        above = (keys > threshold).to(tl.int32)
        found = tl.sum(above, axis=0)
        if (found > 0) & (count + found > ROOM):
            held = tl.load(row + slots, mask=slots < count, other=-(1 << 63))  # [ROOM]
            ordered = tl.sort(held, descending=True)
            threshold = tl.max(tl.where(slots == KEEP - 1, ordered, -(1 << 63)), axis=0)
            tl.debug_barrier()  # all have read before any writes
            tl.store(row + slots, ordered, mask=slots < KEEP)
            count = count * 0 + KEEP
            above = (keys > threshold).to(tl.int32)
            found = tl.sum(above, axis=0)
        if found > 0:
            place = count + tl.cumsum(above, axis=0) - 1
            tl.store(row + place, keys, mask=above != 0)
            count += found
            tl.debug_barrier()  # before they are read
    tl.store(COUNTS + token, count)
    tl.store(THRESHOLDS + token, threshold)


class TokenWinners:
    """``torch.cat(tiles, 1).topk(keep)`` for float32 tiles [tokens, n] on one device, read once.

    A token's values pass a running threshold, and what passes is kept until room is short; memory
    is 8 · tokens · (2 keep + 256) bytes at most. Equal values go to the smaller latent; NaN wins
    nothing; latents are below 2³² and come in ascending order.
    """

    def __init__(self, keep: int, tokens: int, device: torch.device) -> None:
        if keep < 1 or tokens < 1:
            raise ValueError(f"keep and tokens must be at least 1, got {keep} and {tokens}")
        self._keep = keep
        room = triton.next_power_of_2(keep + _BLOCK)
        # What lies beyond the count, and in every place that was never used, ranks last.
        self._keys = torch.full((tokens, room), LEAST, dtype=torch.int64, device=device)
        self._counts = torch.zeros(tokens, dtype=torch.int32, device=device)
        self._thresholds = torch.full((tokens,), LEAST, dtype=torch.int64, device=device)

    def push(self, values: Tensor, start: int) -> None:
        """Add float32 ``values`` [tokens, n] of the latents ``start … start + n - 1``."""
        tokens, room = self._keys.shape
        if values.ndim != 2 or values.shape[0] != tokens or values.dtype != torch.float32:
            raise ValueError(
                f"values must be float32 [{tokens}, n], got {values.dtype} {tuple(values.shape)}"
            )
        if start < 0 or start + values.shape[1] > 1 << 32:
            raise ValueError(f"latents must be in 0 … 2**32 - 1, got {start} + {values.shape[1]}")
        values = values.contiguous()
        _token_winners[(tokens,)](
            values,
            self._keys,
            self._counts,
            self._thresholds,
            values.shape[1],
            start,
            values.stride(0),
            self._keys.stride(0),
            KEEP=self._keep,
            ROOM=room,
            BLOCK=_BLOCK,
            num_warps=1,
        )

    def result(self) -> tuple[Tensor, Tensor]:
        """Values float32 and latents int64 [tokens, keep], the largest first; −∞ where a token had
        fewer."""
        slots = torch.arange(self._keys.shape[1], device=self._keys.device)
        held = self._keys.masked_fill(slots >= self._counts[:, None], LEAST)
        best = held.topk(self._keep, dim=1).values
        values, latents = unpacked(best)
        return values.masked_fill(best == LEAST, -torch.inf), latents
