"""Euclidean norms of decoder rows in fp64, in one pass over them."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from deltalens.kernels.checks import check_operand
from deltalens.kernels.tiles import load_rows, row_pointers

_BLOCK_N, _BLOCK_K = 16, 256


@triton.heuristics({"EVEN_K": lambda args: args["d"] % args["BLOCK_K"] == 0})
@triton.jit(do_not_specialize=["N"])
def _row_norms(
    D, OUT, N, d, stride_dn, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, EVEN_K: tl.constexpr
):
    """OUT = (D.double() ** 2).sum(1).sqrt(); D [N, d], OUT [N] fp64, no fp64 copy of D."""
    offs_n = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    rows = row_pointers(D, offs_n, N, stride_dn)  # [BLOCK_N, 1]
    squares = tl.zeros([BLOCK_N, BLOCK_K], tl.float64)
    for k in range(0, d, BLOCK_K):
        tile = load_rows(rows, k + tl.arange(0, BLOCK_K), d, EVEN_K).to(tl.float64)
        squares += tile * tile  # [BLOCK_N, BLOCK_K]
    tl.store(OUT + offs_n, tl.sqrt(tl.sum(squares, axis=1)), mask=offs_n < N)


def row_norms(W_dec: Tensor) -> Tensor:
    """``torch.linalg.vector_norm(W_dec, dim=1, dtype=torch.float64)``: float64 [n_latents]."""
    check_operand("W_dec", W_dec, 2)
    n_latents, d_model = W_dec.shape
    out = torch.empty(n_latents, dtype=torch.float64, device=W_dec.device)
    _row_norms[(triton.cdiv(n_latents, _BLOCK_N),)](
        W_dec, out, n_latents, d_model, W_dec.stride(0), BLOCK_N=_BLOCK_N, BLOCK_K=_BLOCK_K
    )
    return out
