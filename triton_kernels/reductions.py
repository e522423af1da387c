"""Reducing a tile of per-token attributions over its tokens, in registers."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

REDUCTIONS = ("sum", "abs", "positive", "max", "segments")


@triton.jit
def read_block(TABLE, block):
    """First token of a block, one past its last, and whether it ends a segment."""
    entry = TABLE + block * 3
    return tl.load(entry), tl.load(entry + 1), tl.load(entry + 2)


@triton.jit
def first_value(BLOCK_N: tl.constexpr, REDUCTION: tl.constexpr):
    """What a reduction over no tokens gives, [BLOCK_N] fp32."""
    value: tl.constexpr = float("-inf") if REDUCTION == "max" else 0.0
    return tl.full([BLOCK_N], value, tl.float32)


@triton.jit
def reduce_tokens(total, products, valid, REDUCTION: tl.constexpr):
    """``total`` [BLOCK_N] with one tile more; products [BLOCK_N, BLOCK_T], valid [BLOCK_T].

    Tokens that are not valid have zero products, which only a maximum must not see.
    """
    if REDUCTION == "max":
        products = tl.where(valid[None, :], products, float("-inf"))
        total = tl.maximum(total, tl.max(products, axis=1))
    elif REDUCTION == "abs":
        total += tl.sum(tl.abs(products), axis=1)
    elif REDUCTION == "positive":
        total += tl.sum(tl.maximum(products, 0.0), axis=1)
    else:
        total += tl.sum(products, axis=1)
    return total


@triton.jit
def close_segment(mean, spread, segment, count, closes):
    """Mean and sum of squared deviations (Welford) with one more value where ``closes``.

    ``segment`` [BLOCK_N] is the value, and starts again from zero; ``count`` values in all. No
    branch, because the caller is in one already.
    """
    delta = segment - mean
    updated = mean + delta / tl.maximum(count, 1.0)
    spread = tl.where(closes, spread + delta * (segment - updated), spread)
    return tl.where(closes, updated, mean), spread, tl.where(closes, 0.0, segment)


def merge_segments(means: Tensor, spreads: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and spread over all segments from those of each split (Chan, Golub and LeVeque).

    means, spreads [splits, n]; counts [splits] segments in each.
    """
    weights = counts[:, None] / counts.sum()
    mean = (weights * means).sum(0)
    return mean, (spreads + counts[:, None] * (means - mean).square()).sum(0)


def merge_splits(partial: Tensor, reduction: str) -> Tensor:
    """Partial results [splits, n] of one of the plain reductions as one [n]."""
    return partial.amax(0) if reduction == "max" else partial.sum(0)
