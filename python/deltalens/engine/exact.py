"""fp64 scores with their own bounds: what candidates are rescored with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from deltalens.engine.impl import reference
from deltalens.engine.numerics.precision import SMALLEST_NORMAL, gamma
from deltalens.engine.reductions import SegmentStatistics, combine, reduce_terms
from deltalens.engine.tile import TileScores
from deltalens.engine.token_rows import (
    Group,
    TokenRows,
    block_tokens,
    collect_segments,
    segment_result,
    token_groups,
)

_BLOCK_ELEMENTS = 1 << 20  # of token rows in fp64 at a time


@dataclass(frozen=True)
class ExactTokens:
    """The token form in fp64 over blocks of tokens."""

    source: TokenRows
    reduction: str = "sum"
    segments: Sequence[int] | None = None

    def scores(self, rows: Tensor) -> Tensor:
        """fp64 [1, n] for rows [n, d_model]."""
        partial = (reduce_terms(self._terms(g, rows), self.reduction) for g in self._groups(None))
        return combine(partial, self.reduction)[None]

    def scores_and_error(self, rows: Tensor, norms: Tensor) -> TileScores:
        """|Σ − exact| ≤ γ · ‖d‖² · Σ_t |w_t| ‖γ_t‖ ‖a_t − ā‖ (Cauchy–Schwarz per dot product).

        Each term's own bound is in that sum, so it holds for every reduction.
        """
        tokens, d_model = self.source.shape
        relative = gamma(2 * d_model + tokens + 16, torch.float64)
        error = relative * self._magnitude * norms.square() + SMALLEST_NORMAL[torch.float64]
        return TileScores(self.scores(rows), error[None])

    def statistics(self, rows: Tensor) -> SegmentStatistics:
        """Over segments, fp64 [n] for rows [n, d_model]."""
        groups = self._groups(self.segments)
        results = (segment_result(group, self._terms(group, rows)) for group in groups)
        return collect_segments(groups, results)

    def _groups(self, segments: Sequence[int] | None) -> list[Group]:
        tokens, d_model = self.source.shape
        return token_groups(tokens, block_tokens(d_model, _BLOCK_ELEMENTS), segments)

    def _terms(self, group: Group, rows: Tensor) -> Tensor:
        given, part = self.source, group.tokens
        return reference.token_terms(
            given.acts[part], given.grads[part], rows, given.baseline, given.weights[part]
        )

    @cached_property
    def _magnitude(self) -> float:
        return sum(float(x.norm(dim=1) @ y.norm(dim=1)) for _, x, y in self.source.blocks())


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
