"""Both forms in tiled fp32 PyTorch, each with a bound on its rounding error.

A scorer maps a tile of decoder rows to their scores and to a bound on |score − exact|, where
"exact" is real arithmetic on the inputs as given. The bounds rest on two facts only: a dot product
of length n in any order of summation is off by at most γ_n·Σ|x_j y_j| (Higham, §3.1), and
Σ|x_j y_j| ≤ ‖x‖‖y‖. The contracted axis is cut into blocks of ``BLOCK_D``, so the longest chain of
roundings is BLOCK_D + d_model / BLOCK_D instead of d_model, which makes γ several times smaller.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from deltalens.engine.precision import SMALLEST_NORMAL, UNIT_ROUNDOFF, gamma, power_of_two_scale
from deltalens.engine.tile import TileScores

BLOCK_D = 256
BLOCK_T = 1024


def _blocked_product(rows: Tensor, other: Tensor) -> Tensor:
    """rows @ other with the contracted axis in blocks of BLOCK_D; rows [n, d], other [d, m]."""
    product = rows[:, :BLOCK_D] @ other[:BLOCK_D]
    for start in range(BLOCK_D, rows.shape[1], BLOCK_D):
        product.addmm_(rows[:, start : start + BLOCK_D], other[start : start + BLOCK_D])
    return product


def _chain_length(d_model: int) -> int:
    """Roundings an element of :func:`_blocked_product` goes through, plus one for its operand."""
    return min(d_model, BLOCK_D) + -(-d_model // BLOCK_D) + 1


@dataclass(frozen=True)
class TokenScorer:
    """−Σ_t w_t (γ_t·d)((a_t − ā)·d) for one set of rows; memory O(tile · BLOCK_T)."""

    weighted_grads: Tensor  # [tokens, d_model] fp32, −w_t γ_t scaled
    centred_acts: Tensor  # [tokens, d_model] fp32, a_t − ā scaled
    scale: float

    @classmethod
    def prepare(cls, acts: Tensor, grads: Tensor, baseline: Tensor, weights: Tensor) -> TokenScorer:
        """Fold weights and baseline into the rows (fp64, then one rounding to fp32)."""
        weighted = -weights.double()[:, None] * grads.double()
        centred = acts.double() - baseline.double()
        scale_g = power_of_two_scale(float(weighted.abs().max()))
        scale_a = power_of_two_scale(float(centred.abs().max()))
        return cls(
            (weighted * scale_g).float(), (centred * scale_a).float(), 1.0 / (scale_g * scale_a)
        )

    def scores(self, rows: Tensor) -> Tensor:
        """fp64 [1, n] for rows [n, d_model]."""
        return self._reduce(rows.float(), None)[0]

    def scores_and_error(self, rows: Tensor, norms: Tensor) -> TileScores:
        """Scores with bounds; costs two more passes over the tile products than :meth:`scores`."""
        return TileScores(*self._reduce(rows.float(), norms))

    def _reduce(self, rows: Tensor, norms: Tensor | None) -> tuple[Tensor, Tensor]:
        total = torch.zeros(rows.shape[0], dtype=torch.float64, device=rows.device)
        error = torch.zeros_like(total)
        for start in range(0, self.weighted_grads.shape[0], BLOCK_T):
            grads = self.weighted_grads[start : start + BLOCK_T]
            acts = self.centred_acts[start : start + BLOCK_T]
            x = _blocked_product(rows, grads.T)  # [n, BLOCK_T]
            y = _blocked_product(rows, acts.T)  # [n, BLOCK_T]
            if norms is not None:
                error += _product_error(norms, x, y, grads, acts)
            total += x.mul_(y).sum(1, dtype=torch.float64)
        return (total * self.scale)[None], (error * self.scale)[None]


def _product_error(norms: Tensor, x: Tensor, y: Tensor, grads: Tensor, acts: Tensor) -> Tensor:
    """Bound on |Σ_t fl(x_t)·fl(y_t) − x_t·y_t| per row of norm ``norms``, fp64 [n].

    With |δx_t| ≤ p_t := γ_n‖g_t‖‖d‖ + flushed (products below the smallest normal number) and q_t
    likewise for y: |xy − fl(x)fl(y)| ≤ p_t|fl(y)| + |fl(x)|q_t + p_t·q_t, plus one rounding of
    each product and one of their fp64 sum.
    """
    d_model = grads.shape[1]
    relative = gamma(_chain_length(d_model), torch.float32) * norms  # [n] fp64
    flushed = d_model * SMALLEST_NORMAL[torch.float32] * (1 + norms)
    grad_norms, act_norms = _norms(grads), _norms(acts)  # [BLOCK_T] fp64
    abs_x, abs_y = x.abs(), y.abs()
    x_by_act, x_sum = _weighted_sums(abs_x, act_norms)
    y_by_grad, y_sum = _weighted_sums(abs_y, grad_norms)
    first_order = relative * (x_by_act + y_by_grad) + flushed * (x_sum + y_sum)
    second_order = (
        relative.square() * float(grad_norms @ act_norms)
        + relative * flushed * float(grad_norms.sum() + act_norms.sum())
        + flushed.square() * grads.shape[0]
    )
    products = abs_x.mul_(abs_y).sum(1, dtype=torch.float64)
    rounding = 2 * UNIT_ROUNDOFF[torch.float32] * products
    return first_order + second_order + rounding + grads.shape[0] * SMALLEST_NORMAL[torch.float32]


def _norms(rows: Tensor) -> Tensor:
    return torch.linalg.vector_norm(rows, dim=1, dtype=torch.float64)


def _weighted_sums(magnitudes: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """(Σ_t |x_t| w_t, Σ_t |x_t|) rounded up, fp64 [n] each; magnitudes [n, t]."""
    # fp32 sums of non-negative terms: off by a factor of at most 1 ± γ_t.
    slack = 1 + 2 * gamma(magnitudes.shape[1] + 2, torch.float32)
    columns = torch.stack([weights, torch.ones_like(weights)], 1).float()
    sums = (magnitudes @ columns).double() * slack
    return sums[:, 0], sums[:, 1]


@dataclass(frozen=True)
class QuadraticScorer:
    """d_iᵀ S_b d_i for B moments at once; memory O(tile · d_model) beyond the moments."""

    moments: Tensor  # [B, d_model, d_model] fp32, each scaled
    scales: Tensor  # [B] fp64
    error_per_norm: Tensor  # [B] fp64: |score − exact| ≤ error_per_norm · ‖d_i‖²

    @classmethod
    def prepare(cls, moments: Tensor, accumulated: Tensor) -> QuadraticScorer:
        """From symmetric fp64 moments [B, d_model, d_model].

        ``accumulated`` [B] bounds the spectral norm of each moment's own rounding error.
        """
        scales = [power_of_two_scale(float(moment.abs().max())) for moment in moments]
        scaled = (
            moments
            * torch.tensor(scales, dtype=torch.float64, device=moments.device)[:, None, None]
        )
        rounded = scaled.float()
        # ‖S‖₂ ≤ ‖S‖_F and ‖|S|‖₂ ≤ ‖S‖_F bound the matmul's error; E = S − fl(S) is measured.
        norm = torch.linalg.matrix_norm(scaled)
        lost = torch.linalg.matrix_norm(scaled - rounded.double())
        d_model = moments.shape[-1]
        relative = gamma(_chain_length(d_model) + 2, torch.float32)
        inverse = torch.tensor([1.0 / s for s in scales], dtype=torch.float64).to(moments.device)
        return cls(rounded, inverse, (relative * norm + lost) * inverse + accumulated)

    def scores(self, rows: Tensor) -> Tensor:
        """fp64 [B, n] for rows [n, d_model]."""
        rows = rows.float()
        per_moment = [
            _blocked_product(rows, moment).mul_(rows).sum(1, dtype=torch.float64)
            for moment in self.moments
        ]
        return torch.stack(per_moment) * self.scales[:, None]

    def scores_and_error(self, rows: Tensor, norms: Tensor) -> TileScores:
        """Scores with bounds for rows [n, d_model] of norms [n] (fp64)."""
        flushed = 4 * rows.shape[1] ** 2 * SMALLEST_NORMAL[torch.float32] * (1 + norms)
        error = (
            self.error_per_norm[:, None] * norms.square() * (1 + 2.0**-40)
            + flushed * self.scales[:, None]
        )
        return TileScores(self.scores(rows), error)
