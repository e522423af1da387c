"""The quadratic form d_iᵀ S d_i of every decoder row, by the lower triangle of S."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from deltalens.kernels.checks import check_operand
from deltalens.kernels.configs import (
    TileConfig,
    capability_of,
    rows_aligned,
    split_count,
    tile_config,
)
from deltalens.kernels.tiles import load_columns, load_rows, next_step, row_pointers


@triton.jit
def _column_block(turn, split, SPLITS: tl.constexpr):
    # To and fro over the splits, so that long and short columns of the triangle balance.
    return turn * SPLITS + tl.where(turn % 2 == 0, split, SPLITS - 1 - split)


@triton.jit
def _count_steps(d, split, SPLITS: tl.constexpr, BLOCK_J: tl.constexpr, BLOCK_K: tl.constexpr):
    steps = 0
    for turn in range(tl.cdiv(tl.cdiv(d, BLOCK_J), SPLITS)):
        j0 = _column_block(turn, split, SPLITS) * BLOCK_J
        if j0 < d:
            steps += tl.cdiv(tl.minimum(j0 + BLOCK_J, d), BLOCK_K)
    return steps


@triton.heuristics(
    {
        "EVEN_J": lambda args: args["d"] % args["BLOCK_J"] == 0,
        "EVEN_K": lambda args: args["d"] % args["BLOCK_K"] == 0,
    }
)
@triton.jit(do_not_specialize=["N"])
def _quadratic_form(
    D,
    L,
    OUT,
    N,
    d,
    stride_dn,
    stride_lb,
    stride_lp,
    stride_lj,
    stride_ob,
    stride_os,
    PARTS: tl.constexpr,
    SPLITS: tl.constexpr,
    CHAIN: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_J: tl.constexpr,
    BLOCK_K: tl.constexpr,
    EVEN_J: tl.constexpr,
    EVEN_K: tl.constexpr,
):
    """OUT = ((D @ L[b].T) * D).sum(1) for every b, with L lower triangular.

    D [N, d]; L [B, PARTS, d, d], whose parts add up; OUT [B, SPLITS, N] fp32, to be added up.
    One loop runs over all (column block j, step k ≤ j) so that loads never drain between blocks;
    D @ L.T exists only as one [BLOCK_N, BLOCK_J] accumulator.
    """
    tl.static_assert(BLOCK_J % BLOCK_K == 0 and CHAIN % BLOCK_K == 0)
    pid = tl.program_id(0).to(tl.int64)
    batch = tl.program_id(1).to(tl.int64)
    split = (pid % SPLITS).to(tl.int32)
    offs_n = pid // SPLITS * BLOCK_N + tl.arange(0, BLOCK_N)
    offs_j, offs_k = tl.arange(0, BLOCK_J), tl.arange(0, BLOCK_K)
    rows = row_pointers(D, offs_n, N, stride_dn)  # [BLOCK_N, 1]
    L += batch * stride_lb

    turn, k, part, left, j0 = 0, 0, 0, 0, split * BLOCK_J
    total = tl.zeros([BLOCK_N], dtype=tl.float32)
    acc = tl.zeros([BLOCK_N, BLOCK_J], dtype=tl.float32)
    d_j = load_rows(rows, j0 + offs_j, d, EVEN_J)  # [BLOCK_N, BLOCK_J]
    for _ in range(_count_steps(d, split, SPLITS, BLOCK_J, BLOCK_K) * PARTS):
        # Loaded steps ahead of its use, and before the dot: the reduction then keeps its layout.
        if (k == 0) & (part == 0):
            d_j = load_rows(rows, j0 + offs_j, d, EVEN_J)
            left = tl.cdiv(tl.minimum(j0 + BLOCK_J, d), BLOCK_K) * PARTS
        d_k = load_rows(rows, k + offs_k, d, EVEN_K)  # [BLOCK_N, BLOCK_K]
        l_kj = load_columns(  # [BLOCK_K, BLOCK_J]
            L,
            part,
            stride_lp,
            stride_lj,
            j0 + offs_j,
            j0 + offs_j < d,
            k + offs_k,
            d,
            EVEN_J and EVEN_K,
        )
        acc = tl.dot(d_k, l_kj, acc, input_precision=PRECISION)
        left -= 1
        if left % (CHAIN // BLOCK_K * PARTS) == 0:
            total += tl.sum(acc * d_j.to(tl.float32), axis=1)  # [BLOCK_N]
            acc = tl.zeros([BLOCK_N, BLOCK_J], dtype=tl.float32)
        end = tl.minimum(j0 + BLOCK_J, d)
        k, part, turn = next_step(k, part, turn, end, PARTS, BLOCK_K)
        j0 = _column_block(turn, split, SPLITS) * BLOCK_J
    out = OUT + batch * stride_ob + pid % SPLITS * stride_os
    tl.store(out + offs_n, total, mask=offs_n < N)


def fold_symmetric(moments: Tensor) -> Tensor:
    """Lower triangular L with dᵀ L d = dᵀ S d for symmetric S [..., d, d]; exact in any dtype."""
    lower = moments.tril()
    lower += moments.tril(-1)
    return lower


def quadratic_form(W_dec: Tensor, L: Tensor, *, config: TileConfig | None = None) -> Tensor:
    """``((W_dec @ L[b].sum(0).T) * W_dec).sum(1)`` for every b: float32 [B, n_latents].

    W_dec [n_latents, d_model]; L [B, parts, d_model, d_model] lower triangular in the dtype of
    W_dec, the sum of its parts (:func:`fold_symmetric`, :func:`split_parts`). float32 is multiplied
    in full precision, 16-bit operands on tensor cores with fp32 accumulation. Nothing of size
    n_latents × d_model is made. Raises ValueError for operands that do not fit each other.
    """
    check_operand("W_dec", W_dec, 2)
    check_operand("L", L, 4, W_dec)
    n_latents, d_model = W_dec.shape
    if L.shape[2] != d_model:
        raise ValueError(f"L must be [B, parts, {d_model}, {d_model}], got {tuple(L.shape)}")
    capability = capability_of(W_dec)
    config = config or tile_config(capability, W_dec.dtype, aligned=rows_aligned(W_dec, L))
    row_bytes = d_model * W_dec.element_size()
    splits = split_count(capability, config, row_bytes, triton.cdiv(d_model, config.columns))
    out = torch.empty(L.shape[0], splits, n_latents, dtype=torch.float32, device=W_dec.device)
    grid = (triton.cdiv(n_latents, config.rows) * splits, L.shape[0])
    _quadratic_form[grid](
        W_dec,
        L,
        out,
        n_latents,
        d_model,
        W_dec.stride(0),
        L.stride(0),
        L.stride(1),
        L.stride(2),
        out.stride(0),
        out.stride(1),
        PARTS=L.shape[1],
        SPLITS=splits,
        CHAIN=config.chain,
        PRECISION="ieee",
        BLOCK_N=config.rows,
        BLOCK_J=config.columns,
        BLOCK_K=config.depth,
        num_warps=config.num_warps,
        num_stages=config.num_stages,
    )
    return out.sum(1)
