"""The encoder-gated form: the gradient's product with d_i times the latent's own activation."""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from deltalens.kernels.blocks import token_blocks
from deltalens.kernels.checks import check_operand
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
LATENT_VECTORS = ("scale", "bias", "cut", "mean", "x_slope", "u_slope")
TOKEN_VECTORS = ("threshold", "x_norm", "u_norm")


@triton.jit
def _of_latents(LATENTS, which: tl.constexpr, stride, offs_n, N):
    """One of LATENT_VECTORS as a column [BLOCK_N, 1]."""
    return tl.load(LATENTS + which * stride + offs_n, mask=offs_n < N, other=0.0)[:, None]


@triton.jit
def _of_tokens(TOKENS, which: tl.constexpr, stride, offs_t, valid):
    """One of TOKEN_VECTORS as a row [1, BLOCK_T]."""
    return tl.load(TOKENS + which * stride + offs_t, mask=valid, other=0.0)[None, :]


@triton.jit
def _term_errors(x, u, p, z, open, mean, scale, bias, cut, threshold, e_x, e_u, rounding):
    """Bounds on the errors of x·(z − mean), [BLOCK_N, BLOCK_T]; see engine/latent_terms.py."""
    e_p = e_u * scale + (tl.abs(p) + tl.abs(bias)) * 0.00000055  # 9 roundings of fp32
    # |u| stands for |cut|, which may be infinite: where they are far apart neither matters.
    unsure = tl.abs(u - cut) <= e_u + tl.abs(u) * 0.0000005
    unsure = unsure | (tl.abs(p - threshold) <= e_p)
    near = (open | unsure) & (p > -e_p)
    e_z = tl.where(near, e_p, 0.0) + tl.where(unsure, tl.maximum(p, 0.0), 0.0)
    size = tl.abs(x)
    errors = (size + e_x) * e_z + tl.abs(z - mean) * e_x
    return errors + size * (z + tl.abs(mean)) * rounding


@triton.heuristics(
    {
        "EVEN_K": lambda args: args["d"] % args["BLOCK_K"] == 0,
        "EVEN_T": lambda args: args["tokens"] % args["BLOCK_T"] == 0,
    }
)
@triton.jit(do_not_specialize=["N", "tokens", "rounding"])
def _latent_attribution(
    D,
    E,
    G,
    A,
    LATENTS,
    TOKENS,
    TABLE,
    BOUNDS,
    OUT,
    N,
    tokens,
    d,
    rounding,
    stride_dn,
    stride_en,
    stride_gp,
    stride_gt,
    stride_ap,
    stride_at,
    stride_lv,
    stride_tv,
    stride_os,
    PARTS: tl.constexpr,
    SPLITS: tl.constexpr,
    REDUCTION: tl.constexpr,
    ERRORS: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_K: tl.constexpr,
    EVEN_K: tl.constexpr,
    EVEN_T: tl.constexpr,
):
    """OUT[:, 0] = reduce((D @ G.sum(0).T) * (z - mean), over tokens), u = E @ A.sum(0).T,
    p = scale * u + bias, z = relu(p) where (u > cut) & (p > threshold), 0 elsewhere.

    D, E [N, d]; G, A [PARTS, tokens, d], whose parts add up; LATENTS [6, N], TOKENS [3, tokens]
    fp32; OUT [SPLITS, 2, N] fp32, the second a bound on errors. Activations exist only as one
    [BLOCK_N, BLOCK_T] accumulator.
    """
    pid = tl.program_id(0).to(tl.int64)
    split = pid % SPLITS
    offs_n = pid // SPLITS * BLOCK_N + tl.arange(0, BLOCK_N)
    offs_k = tl.arange(0, BLOCK_K)
    EVEN: tl.constexpr = EVEN_K and EVEN_T
    d_rows = row_pointers(D, offs_n, N, stride_dn)  # [BLOCK_N, 1]
    e_rows = row_pointers(E, offs_n, N, stride_en)  # [BLOCK_N, 1]
    block = tl.load(BOUNDS + split)
    per_block = tl.cdiv(d, BLOCK_K) * PARTS
    steps = (tl.load(BOUNDS + split + 1) - block) * per_block

    k, part, left = 0, 0, per_block
    total = first_value(BLOCK_N, REDUCTION)
    errors = tl.zeros([BLOCK_N], tl.float32)
    x = tl.zeros([BLOCK_N, BLOCK_T], tl.float32)
    u = tl.zeros([BLOCK_N, BLOCK_T], tl.float32)
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
        u = tl.dot(e_k, a_k, u, input_precision=PRECISION)
        left -= 1
        if left == 0:
            left = per_block
            scale = _of_latents(LATENTS, 0, stride_lv, offs_n, N)
            bias = _of_latents(LATENTS, 1, stride_lv, offs_n, N)
            cut = _of_latents(LATENTS, 2, stride_lv, offs_n, N)
            mean = _of_latents(LATENTS, 3, stride_lv, offs_n, N)
            threshold = _of_tokens(TOKENS, 0, stride_tv, offs_t, valid)
            p = u * scale + bias  # [BLOCK_N, BLOCK_T]
            open = (u > cut) & (p > threshold)
            z = tl.where(open, tl.maximum(p, 0.0), 0.0)
            total = reduce_tokens(total, x * (z - mean), valid, REDUCTION)
            if ERRORS:
                e_x = _of_latents(LATENTS, 4, stride_lv, offs_n, N)
                e_x = e_x * _of_tokens(TOKENS, 1, stride_tv, offs_t, valid)
                e_u = _of_latents(LATENTS, 5, stride_lv, offs_n, N)
                e_u = e_u * _of_tokens(TOKENS, 2, stride_tv, offs_t, valid)
                of_terms = _term_errors(
                    x, u, p, z, open, mean, scale, bias, cut, threshold, e_x, e_u, rounding
                )
                errors += tl.sum(tl.where(valid[None, :], of_terms, 0.0), axis=1)
            x = tl.zeros([BLOCK_N, BLOCK_T], tl.float32)
            u = tl.zeros([BLOCK_N, BLOCK_T], tl.float32)
        k, part, block = next_step(k, part, block, d, PARTS, BLOCK_K)
        start, stop, _closes = read_block(TABLE, block)
    out = OUT + split * stride_os + offs_n
    tl.store(out, total, mask=offs_n < N)
    if ERRORS:
        tl.store(out + stride_os // 2, errors, mask=offs_n < N)


class LatentScores(NamedTuple):
    """Results of :func:`latent_attribution`, float32 [n_latents] each."""

    scores: Tensor
    errors: Tensor | None  # bounds on |score − exact|, when asked for


def latent_attribution(
    W_dec: Tensor,
    W_enc: Tensor,
    grads: Tensor,
    acts: Tensor,
    *,
    latents: Tensor,
    tokens: Tensor,
    reduction: str = "sum",
    rounding: float | None = None,
    config: TileConfig | None = None,
) -> LatentScores:
    """``((W_dec @ grads.sum(0).T) * (z - mean)).sum(1)`` with z [n_latents, tokens] what the gate
    ``relu(p)`` where ``(u > cut) & (p > threshold)`` makes of ``u = W_enc @ acts.sum(0).T`` and
    ``p = scale * u + bias``.

    W_dec, W_enc [n_latents, d_model], one encoder row per latent; grads, acts [parts, tokens,
    d_model], each the sum of its parts, all in one dtype; weights and their sign are folded into
    grads. latents: float32 [6, n_latents] of LATENT_VECTORS, tokens: float32 [3, tokens] of
    TOKEN_VECTORS; the products of a slope and a norm bound the errors of the products x and u.
    reduction: "sum", "abs", "positive" or "max". With ``rounding``, the relative error of adding up
    terms, errors are bounded too, up to the roundings of their own sums. Nothing of size tokens ×
    n_latents is made.
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
    parts, count = grads.shape[:2]
    _check_vectors("latents", latents, (len(LATENT_VECTORS), n_latents), W_dec)
    _check_vectors("tokens", tokens, (len(TOKEN_VECTORS), count), W_dec)
    capability = capability_of(W_dec)
    config = config or tile_config(
        capability,
        W_dec.dtype,
        aligned=rows_aligned(W_dec, W_enc, grads, acts),
        two_decoders=True,
        errors=rounding is not None,
    )
    row_bytes = 2 * d_model * W_dec.element_size()
    splits = split_count(capability, config, row_bytes, triton.cdiv(count, config.columns))
    blocks = token_blocks(count, None, config.columns, splits).to(W_dec.device)
    out = torch.empty(splits, 2, n_latents, dtype=torch.float32, device=W_dec.device)
    _latent_attribution[(triton.cdiv(n_latents, config.rows) * splits,)](
        W_dec,
        W_enc,
        grads,
        acts,
        latents,
        tokens,
        blocks.table,
        blocks.bounds,
        out,
        n_latents,
        count,
        d_model,
        0.0 if rounding is None else rounding,
        W_dec.stride(0),
        W_enc.stride(0),
        grads.stride(0),
        grads.stride(1),
        acts.stride(0),
        acts.stride(1),
        latents.stride(0),
        tokens.stride(0),
        out.stride(0),
        PARTS=parts,
        SPLITS=splits,
        REDUCTION=reduction,
        ERRORS=rounding is not None,
        PRECISION="ieee",
        BLOCK_N=config.rows,
        BLOCK_T=config.columns,
        BLOCK_K=config.depth,
        num_warps=config.num_warps,
        num_stages=config.num_stages,
    )
    scores = merge_splits(out[:, 0], reduction)
    return LatentScores(scores, None if rounding is None else out[:, 1].sum(0))


def _check_vectors(name: str, value: Tensor, shape: tuple[int, int], like: Tensor) -> None:
    """``value`` is float32, contiguous, of that shape and on the device of ``like``."""
    if value.shape != shape or value.dtype != torch.float32 or not value.is_contiguous():
        raise ValueError(
            f"{name} must be a contiguous float32 {list(shape)}, got {value.dtype} "
            f"{tuple(value.shape)}"
        )
    if value.device != like.device:
        raise ValueError(f"{name} is on {value.device} but the decoder rows are on {like.device}")
