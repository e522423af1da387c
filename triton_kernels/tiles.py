"""Loading tiles of the operands; what lies outside is read as zero."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def row_pointers(base, offs_n, n_rows, stride_n):
    """Pointers [BLOCK_N, 1] to rows; rows past the last repeat it, and are not stored."""
    return base + tl.minimum(offs_n, n_rows - 1)[:, None] * stride_n


@triton.jit
def next_step(k, part, block, end, PARTS: tl.constexpr, BLOCK_K: tl.constexpr):
    """The step after (block, k, part): through the parts, along k to ``end``, then on a block.

    A kernel may use it only for what to load next. What is to be done after a product needs a
    counter of its own: Triton 3.2 and 3.3 pipeline no loop whose loads depend on the same one.
    """
    if PARTS > 1:
        part += 1
        k += tl.where(part == PARTS, BLOCK_K, 0)
        part = tl.where(part == PARTS, 0, part)
    else:
        k += BLOCK_K
    block += (k >= end).to(tl.int32)
    k = tl.where(k >= end, 0, k)
    return k, part, block


@triton.jit
def load_rows(rows, offs_k, d, EVEN: tl.constexpr):
    """Columns ``offs_k`` of the rows at ``rows`` [BLOCK_N, 1]: [BLOCK_N, BLOCK_K]."""
    if EVEN:
        tile = tl.load(rows + offs_k[None, :])
    else:
        tile = tl.load(rows + offs_k[None, :], mask=offs_k[None, :] < d, other=0.0)
    return tile


@triton.jit
def load_columns(base, part, stride_p, stride_t, offs_t, valid, offs_k, d, EVEN: tl.constexpr):
    """Columns ``offs_k`` of the rows ``offs_t`` of ``base[part]``, transposed: [BLOCK_K, BLOCK_T].

    The address of the part is computed in 64 bits.
    """
    base += tl.full([], part, tl.int64) * stride_p
    ptrs = base + offs_t.to(tl.int64)[None, :] * stride_t + offs_k[:, None]
    if EVEN:
        tile = tl.load(ptrs)
    else:
        tile = tl.load(ptrs, mask=valid[None, :] & (offs_k[:, None] < d), other=0.0)
    return tile
