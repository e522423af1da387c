"""The token form: two products with one decoder tile, multiplied and reduced over tokens."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from deltalens.kernels.blocks import check_segments, token_blocks
from deltalens.kernels.checks import check_operand
from deltalens.kernels.configs import (
    TileConfig,
    capability_of,
    generation,
    rows_aligned,
    split_count,
    tile_config,
)
from deltalens.kernels.reductions import (
    REDUCTIONS,
    close_segment,
    first_value,
    merge_segments,
    merge_splits,
    read_block,
    reduce_tokens,
)
from deltalens.kernels.tiles import load_columns, load_rows, next_step, row_pointers


@triton.heuristics(
    {
        "EVEN_K": lambda args: args["d"] % args["BLOCK_K"] == 0,
        "EVEN_T": lambda args: (
            args["REDUCTION"] != "segments" and args["tokens"] % args["BLOCK_T"] == 0
        ),
    }
)
@triton.jit(do_not_specialize=["N", "tokens"])
def _token_attribution(
    D,
    G,
    A,
    TABLE,
    BOUNDS,
    OUT,
    N,
    tokens,
    d,
    stride_dn,
    stride_gp,
    stride_gt,
    stride_ap,
    stride_at,
    stride_os,
    PARTS: tl.constexpr,
    SPLITS: tl.constexpr,
    REDUCTION: tl.constexpr,
    SQUARES: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_K: tl.constexpr,
    EVEN_K: tl.constexpr,
    EVEN_T: tl.constexpr,
):
    """OUT = reduce((D @ G.sum(0).T) * (D @ A.sum(0).T), over tokens).

    D [N, d]; G, A [PARTS, tokens, d], whose parts add up; OUT [SPLITS, 3, N] fp32: the reduction,
    then squared deviations or Σx², Σy². One loop runs over all (block of tokens, step k), and the
    products exist only as two [BLOCK_N, BLOCK_T] accumulators.
    """
    pid = tl.program_id(0).to(tl.int64)
    split = pid % SPLITS
    offs_n = pid // SPLITS * BLOCK_N + tl.arange(0, BLOCK_N)
    offs_k = tl.arange(0, BLOCK_K)
    EVEN: tl.constexpr = EVEN_K and EVEN_T
    rows = row_pointers(D, offs_n, N, stride_dn)  # [BLOCK_N, 1]
    block = tl.load(BOUNDS + split)
    per_block = tl.cdiv(d, BLOCK_K) * PARTS
    steps = (tl.load(BOUNDS + split + 1) - block) * per_block

    k, part, left, ended = 0, 0, per_block, 0.0
    total = first_value(BLOCK_N, REDUCTION)
    extra = tl.zeros([BLOCK_N], tl.float32)
    sum_yy = tl.zeros([BLOCK_N], tl.float32)
    segment = tl.zeros([BLOCK_N], tl.float32)
    x = tl.zeros([BLOCK_N, BLOCK_T], tl.float32)
    y = tl.zeros([BLOCK_N, BLOCK_T], tl.float32)
    start, stop, closes = read_block(TABLE, block)
    for _ in range(steps):
        offs_t = start + tl.arange(0, BLOCK_T)
        valid = offs_t < stop  # [BLOCK_T]
        d_k = load_rows(rows, k + offs_k, d, EVEN_K)  # [BLOCK_N, BLOCK_K]
        # [BLOCK_K, BLOCK_T]
        g_k = load_columns(G, part, stride_gp, stride_gt, offs_t, valid, k + offs_k, d, EVEN)
        a_k = load_columns(A, part, stride_ap, stride_at, offs_t, valid, k + offs_k, d, EVEN)
        x = tl.dot(d_k, g_k, x, input_precision=PRECISION)
        y = tl.dot(d_k, a_k, y, input_precision=PRECISION)
        left -= 1
        if left == 0:
            left = per_block
            if SQUARES:
                extra += tl.sum(x * x, axis=1)
                sum_yy += tl.sum(y * y, axis=1)
            if REDUCTION == "segments":
                segment = reduce_tokens(segment, x * y, valid, REDUCTION)
                ended += closes.to(tl.float32)
                total, extra, segment = close_segment(total, extra, segment, ended, closes != 0)
            else:
                total = reduce_tokens(total, x * y, valid, REDUCTION)
            x = tl.zeros([BLOCK_N, BLOCK_T], tl.float32)
            y = tl.zeros([BLOCK_N, BLOCK_T], tl.float32)
        k, part, block = next_step(k, part, block, d, PARTS, BLOCK_K)
        start, stop, closes = read_block(TABLE, block)
    out = OUT + split * stride_os + offs_n
    tl.store(out, total, mask=offs_n < N)
    if SQUARES or REDUCTION == "segments":
        tl.store(out + stride_os // 3, extra, mask=offs_n < N)
    if SQUARES:
        tl.store(out + stride_os // 3 * 2, sum_yy, mask=offs_n < N)


class TokenScores(NamedTuple):
    """Results of :func:`token_attribution`, float32 [n_latents] each."""

    scores: Tensor  # the reduction; for "segments" the mean over segments
    spread: Tensor | None  # "segments": sum over segments of squared deviations from that mean
    sum_xx: Tensor | None  # Σ_t x², Σ_t y² of the two products, when asked for
    sum_yy: Tensor | None


def token_attribution(
    W_dec: Tensor,
    grads: Tensor,
    acts: Tensor,
    *,
    reduction: str = "sum",
    segments: Tensor | None = None,
    squares: bool = False,
    config: TileConfig | None = None,
) -> TokenScores:
    """``((W_dec @ grads.sum(0).T) * (W_dec @ acts.sum(0).T)).sum(1)``, or another reduction.

    W_dec [n_latents, d_model]; grads, acts [parts, tokens, d_model] in the dtype of W_dec, each the
    sum of its parts; weights, their sign and the baseline are folded into them by the caller.
    reduction: "sum", "abs" (sum of |·|), "positive" (sum of positive parts), "max", or "segments"
    with offsets ``segments`` [n + 1] into the tokens: sums within segments, then their mean and
    spread over segments in the same pass. squares: also Σx² and Σy² (not with "segments"), from
    which rounding errors can be bounded. float32 is multiplied in full precision, 16-bit operands
    on tensor cores with fp32 accumulation. Nothing of size tokens × n_latents is made.
    """
    check_operand("W_dec", W_dec, 2)
    check_operand("grads", grads, 3, W_dec)
    check_operand("acts", acts, 3, W_dec)
    _check_request(grads, acts, reduction, segments, squares)
    capability, parts = capability_of(W_dec), grads.shape[0]
    config = config or tile_config(
        capability, W_dec.dtype, aligned=rows_aligned(W_dec, grads, acts)
    )
    if segments is not None and not compiles_segments(capability, W_dec.dtype):
        return _segment_by_segment(W_dec, grads, acts, segments, config)
    n_latents, d_model = W_dec.shape
    tokens = grads.shape[1]
    row_bytes = d_model * W_dec.element_size()
    splits = split_count(capability, config, row_bytes, triton.cdiv(tokens, config.columns))
    blocks = token_blocks(tokens, segments, config.columns, splits).to(W_dec.device)
    out = torch.empty(splits, 3, n_latents, dtype=torch.float32, device=W_dec.device)
    _token_attribution[(triton.cdiv(n_latents, config.rows) * splits,)](
        W_dec,
        grads,
        acts,
        blocks.table,
        blocks.bounds,
        out,
        n_latents,
        tokens,
        d_model,
        W_dec.stride(0),
        grads.stride(0),
        grads.stride(1),
        acts.stride(0),
        acts.stride(1),
        out.stride(0),
        PARTS=parts,
        SPLITS=splits,
        REDUCTION=reduction,
        SQUARES=squares or needs_squares(capability, reduction),
        PRECISION="ieee",
        BLOCK_N=config.rows,
        BLOCK_T=config.columns,
        BLOCK_K=config.depth,
        num_warps=config.num_warps,
        num_stages=config.num_stages,
    )
    return _collect(out, blocks.segments, reduction, squares)


def needs_squares(capability: int, reduction: str) -> bool:
    """Whether the kernel has to sum squares even when nobody reads them.

    Triton 3.9 fails to place accumulators in Blackwell's tensor memory for the loop without them.
    """
    return generation(capability) == "blackwell" and reduction != "segments"


def compiles_segments(capability: int, dtype: torch.dtype) -> bool:
    """Whether the kernel can go through segments by itself.

    For Blackwell's tensor cores Triton 3.9 crashes, hangs or compiles it, at random.
    """
    return generation(capability) != "blackwell" or dtype == torch.float32


def _segment_by_segment(
    W_dec: Tensor, grads: Tensor, acts: Tensor, segments: Tensor, config: TileConfig
) -> TokenScores:
    """Mean and spread over segments (Welford) from a launch for each."""
    mean = torch.zeros(W_dec.shape[0], device=W_dec.device)
    spread = torch.zeros_like(mean)
    for count, (start, stop) in enumerate(pairwise(segments.tolist()), 1):
        tokens = slice(start, stop)
        sums = token_attribution(W_dec, grads[:, tokens], acts[:, tokens], config=config).scores
        delta = sums - mean
        mean += delta / count
        spread += delta * (sums - mean)
    return TokenScores(mean, spread, None, None)


def _check_request(
    grads: Tensor, acts: Tensor, reduction: str, segments: Tensor | None, squares: bool
) -> None:
    if grads.shape != acts.shape or grads.numel() == 0:
        raise ValueError(
            "grads and acts must both be [parts, tokens, d_model], got "
            f"{tuple(grads.shape)} and {tuple(acts.shape)}"
        )
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction must be one of {', '.join(REDUCTIONS)}, got {reduction!r}")
    if (reduction == "segments") != (segments is not None):
        raise ValueError('segments must be given for reduction="segments", and only then')
    if segments is not None:
        check_segments(segments, grads.shape[1])
        if squares:
            raise ValueError('squares cannot be had with reduction="segments"')


def _collect(out: Tensor, counts: Tensor, reduction: str, squares: bool) -> TokenScores:
    if reduction == "segments":
        mean, spread = merge_segments(out[:, 0], out[:, 1], counts)
        return TokenScores(mean, spread, None, None)
    scores = merge_splits(out[:, 0], reduction)
    if not squares:
        return TokenScores(scores, None, None, None)
    return TokenScores(scores, None, out[:, 1].sum(0), out[:, 2].sum(0))
