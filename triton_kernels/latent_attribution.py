"""The encoder-gated form: the gradient's product with d_i times the latent's own activation."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from deltalens.kernels.blocks import token_blocks
from deltalens.kernels.checks import check_operand, check_vector
from deltalens.kernels.configs import (
    TileConfig,
    capability_of,
    rows_aligned,
    split_count,
    tile_config,
)
from deltalens.kernels.reductions import first_value, merge_splits, read_block, reduce_tokens
from deltalens.kernels.tiles import load_columns, load_rows, next_step, row_pointers

REDUCTIONS = ("sum", "abs", "positive", "max")
ACTIVATIONS = ("relu", "jumprelu")


@triton.jit
def _activate(pre, threshold, ACTIVATION: tl.constexpr):
    if ACTIVATION == "jumprelu":
        z = tl.where(pre > threshold[:, None], pre, 0.0)
    else:
        z = tl.maximum(pre, 0.0)
    return z  # [BLOCK_N, BLOCK_T]


@triton.heuristics(
    {
        "EVEN_K": lambda args: args["d"] % args["BLOCK_K"] == 0,
        "EVEN_T": lambda args: args["tokens"] % args["BLOCK_T"] == 0,
    }
)
@triton.jit(do_not_specialize=["N", "tokens"])
def _latent_attribution(
    D,
    E,
    G,
    A,
    BIAS,
    THRESHOLD,
    MEAN,
    TABLE,
    BOUNDS,
    OUT,
    N,
    tokens,
    d,
    stride_dn,
    stride_en,
    stride_gp,
    stride_gt,
    stride_ap,
    stride_at,
    stride_os,
    PARTS: tl.constexpr,
    SPLITS: tl.constexpr,
    REDUCTION: tl.constexpr,
    ACTIVATION: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_K: tl.constexpr,
    EVEN_K: tl.constexpr,
    EVEN_T: tl.constexpr,
):
    """OUT = reduce((D @ G.sum(0).T) * (act(E @ A.sum(0).T + BIAS) - MEAN), over tokens).

    D, E [N, d]; G, A [PARTS, tokens, d], whose parts add up; BIAS, THRESHOLD, MEAN [N] fp32; OUT
    [SPLITS, N] fp32. Activations exist only as one [BLOCK_N, BLOCK_T] accumulator.
    """
    pid = tl.program_id(0).to(tl.int64)
    split = pid % SPLITS
    offs_n = pid // SPLITS * BLOCK_N + tl.arange(0, BLOCK_N)
    offs_k = tl.arange(0, BLOCK_K)
    EVEN: tl.constexpr = EVEN_K and EVEN_T
    d_rows = row_pointers(D, offs_n, N, stride_dn)  # [BLOCK_N, 1]
    e_rows = row_pointers(E, offs_n, N, stride_en)  # [BLOCK_N, 1]
    bias = tl.load(BIAS + offs_n, mask=offs_n < N, other=0.0)
    threshold = tl.load(THRESHOLD + offs_n, mask=offs_n < N, other=0.0)
    mean = tl.load(MEAN + offs_n, mask=offs_n < N, other=0.0)
    block = tl.load(BOUNDS + split)
    per_block = tl.cdiv(d, BLOCK_K) * PARTS
    steps = (tl.load(BOUNDS + split + 1) - block) * per_block

    k, part, left = 0, 0, per_block
    total = first_value(BLOCK_N, REDUCTION)
    x = tl.zeros([BLOCK_N, BLOCK_T], tl.float32)
    y = tl.zeros([BLOCK_N, BLOCK_T], tl.float32)
    start, stop, _closes = read_block(TABLE, block)
    for _ in range(steps):
        offs_t = start + tl.arange(0, BLOCK_T)
        valid = offs_t < stop  # [BLOCK_T]
        d_k = load_rows(d_rows, k + offs_k, d, EVEN_K)  # [BLOCK_N, BLOCK_K]
        e_k = load_rows(e_rows, k + offs_k, d, EVEN_K)  # [BLOCK_N, BLOCK_K]
        # [BLOCK_K, BLOCK_T]
        g_k = load_columns(G, part, stride_gp, stride_gt, offs_t, valid, k + offs_k, d, EVEN)
        a_k = load_columns(A, part, stride_ap, stride_at, offs_t, valid, k + offs_k, d, EVEN)
        x = tl.dot(d_k, g_k, x, input_precision=PRECISION)
        y = tl.dot(e_k, a_k, y, input_precision=PRECISION)
        left -= 1
        if left == 0:
            left = per_block
            z = _activate(y + bias[:, None], threshold, ACTIVATION)
            total = reduce_tokens(total, x * (z - mean[:, None]), valid, REDUCTION)
            x = tl.zeros([BLOCK_N, BLOCK_T], tl.float32)
            y = tl.zeros([BLOCK_N, BLOCK_T], tl.float32)
        k, part, block = next_step(k, part, block, d, PARTS, BLOCK_K)
        start, stop, _closes = read_block(TABLE, block)
    tl.store(OUT + split * stride_os + offs_n, total, mask=offs_n < N)


def latent_attribution(
    W_dec: Tensor,
    W_enc: Tensor,
    grads: Tensor,
    acts: Tensor,
    *,
    bias: Tensor,
    mean: Tensor,
    threshold: Tensor | float | None = None,
    reduction: str = "sum",
    config: TileConfig | None = None,
) -> Tensor:
    """``((W_dec @ grads.sum(0).T) * (act(W_enc @ acts.sum(0).T + bias) - mean)).sum(1)``.

    W_dec, W_enc [n_latents, d_model], one encoder row per latent; grads, acts [parts, tokens,
    d_model], each the sum of its parts, all in one dtype; weights and their sign are folded into
    grads, the encoder's input bias into bias. bias, mean (of the latent's activation over the
    baseline) float32 [n_latents]. The activation is ReLU, or with threshold (float32 [n_latents],
    or one number for all) z where z > threshold and 0 elsewhere (JumpReLU, BatchTopK). reduction:
    "sum", "abs", "positive" or "max". Returns float32 [n_latents]. Near a threshold the choice is
    that of the rounded product. Nothing of size tokens × n_latents is made.
    """
    check_operand("W_dec", W_dec, 2)
    n_latents, d_model = W_dec.shape
    for name, value, ndim in (("W_enc", W_enc, 2), ("grads", grads, 3), ("acts", acts, 3)):
        check_operand(name, value, ndim, W_dec)
    if W_enc.shape != W_dec.shape or grads.shape != acts.shape or grads.numel() == 0:
        raise ValueError(
            "W_enc must have the shape of W_dec, and acts that of grads; got "
            f"{tuple(W_enc.shape)}, {tuple(W_dec.shape)}, {tuple(acts.shape)}, {tuple(grads.shape)}"
        )
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction must be one of {', '.join(REDUCTIONS)}, got {reduction!r}")
    thresholds = bias if threshold is None else _as_vector(threshold, bias)
    for name, vector in (("bias", bias), ("mean", mean), ("threshold", thresholds)):
        check_vector(name, vector, n_latents, W_dec)
    capability, parts, tokens = capability_of(W_dec), grads.shape[0], grads.shape[1]
    config = config or tile_config(
        capability,
        W_dec.dtype,
        aligned=rows_aligned(W_dec, W_enc, grads, acts),
        two_decoders=True,
    )
    row_bytes = 2 * d_model * W_dec.element_size()
    splits = split_count(capability, config, row_bytes, triton.cdiv(tokens, config.columns))
    blocks = token_blocks(tokens, None, config.columns, splits).to(W_dec.device)
    out = torch.empty(splits, n_latents, dtype=torch.float32, device=W_dec.device)
    _latent_attribution[(triton.cdiv(n_latents, config.rows) * splits,)](
        W_dec,
        W_enc,
        grads,
        acts,
        bias,
        thresholds,
        mean,
        blocks.table,
        blocks.bounds,
        out,
        n_latents,
        tokens,
        d_model,
        W_dec.stride(0),
        W_enc.stride(0),
        grads.stride(0),
        grads.stride(1),
        acts.stride(0),
        acts.stride(1),
        out.stride(0),
        PARTS=parts,
        SPLITS=splits,
        REDUCTION=reduction,
        ACTIVATION="relu" if threshold is None else "jumprelu",
        PRECISION="ieee",
        BLOCK_N=config.rows,
        BLOCK_T=config.columns,
        BLOCK_K=config.depth,
        num_warps=config.num_warps,
        num_stages=config.num_stages,
    )
    return merge_splits(out, reduction)


def _as_vector(threshold: Tensor | float, like: Tensor) -> Tensor:
    if isinstance(threshold, Tensor):
        return threshold
    return torch.full_like(like, threshold)
