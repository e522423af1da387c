"""fp64 scores with their own bounds: what candidates are rescored with."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from deltalens.engine.impl import reference
from deltalens.engine.precision import SMALLEST_NORMAL, gamma
from deltalens.engine.tile import TileScores

_BLOCK_T = 1024


@dataclass(frozen=True)
class ExactTokens:
    """The token form in fp64 over blocks of tokens."""

    acts: Tensor  # [tokens, d_model]
    grads: Tensor  # [tokens, d_model]
    baseline: Tensor  # [d_model]
    weights: Tensor  # [tokens]

    def scores(self, rows: Tensor) -> Tensor:
        """fp64 [1, n] for rows [n, d_model]."""
        total = torch.zeros(rows.shape[0], dtype=torch.float64, device=rows.device)
        for start in range(0, self.acts.shape[0], _BLOCK_T):
            part = slice(start, start + _BLOCK_T)
            total += reference.token_scores(
                self.acts[part], self.grads[part], rows, self.baseline, self.weights[part]
            )
        return total[None]

    def scores_and_error(self, rows: Tensor, norms: Tensor) -> TileScores:
        """|Σ − exact| ≤ γ · ‖d‖² · Σ_t |w_t| ‖γ_t‖ ‖a_t − ā‖ (Cauchy–Schwarz per dot product)."""
        tokens, d_model = self.acts.shape
        centred = self.acts.double() - self.baseline.double()
        magnitude = self.weights.double().abs() * self.grads.double().norm(dim=1)
        magnitude_sum = float(magnitude @ centred.norm(dim=1))
        relative = gamma(2 * d_model + tokens + 16, torch.float64)
        error = relative * magnitude_sum * norms.square() + SMALLEST_NORMAL[torch.float64]
        return TileScores(self.scores(rows), error[None])


@dataclass(frozen=True)
class ExactMoments:
    """d_iᵀ S_b d_i in fp64 for B moments."""

    moments: Tensor  # fp64 [B, d_model, d_model]
    rounding: Tensor  # fp64 [B], see CrossMoment.rounding

    def scores(self, rows: Tensor) -> Tensor:
        """fp64 [B, n] for rows [n, d_model]."""
        return torch.stack([reference.quadratic_scores(moment, rows) for moment in self.moments])

    def scores_and_error(self, rows: Tensor, norms: Tensor) -> TileScores:
        """|score − exact| ≤ (γ ‖S‖_F + rounding) · ‖d‖²."""
        relative = gamma(2 * rows.shape[1] + 16, torch.float64)
        per_norm = relative * torch.linalg.matrix_norm(self.moments) + self.rounding
        error = per_norm[:, None] * norms.square() + SMALLEST_NORMAL[torch.float64]
        return TileScores(self.scores(rows), error)
