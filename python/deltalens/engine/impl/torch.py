"""Both forms in tiled fp32 PyTorch, each with a bound on its rounding error.

A scorer maps a tile of decoder rows to their scores and to a bound on |score − exact|, where
"exact" is real arithmetic on the inputs as given. The bounds rest on two facts only: a dot product
of length n in any order of summation is off by at most γ_n·Σ|x_j y_j| (Higham, §3.1), and
Σ|x_j y_j| ≤ ‖x‖‖y‖. The contracted axis is cut into blocks of ``BLOCK_D``, so the longest chain of
roundings is BLOCK_D + d_model / BLOCK_D instead of d_model, which makes γ several times smaller.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from deltalens.engine.numerics.norms import row_norms
from deltalens.engine.numerics.precision import (
    SMALLEST_NORMAL,
    UNIT_ROUNDOFF,
    gamma,
    power_of_two_scale,
)
from deltalens.engine.numerics.products import blocked_product, chain_length
from deltalens.engine.reductions import SegmentStatistics, combine, reduce_terms
from deltalens.engine.tile import TileScores
from deltalens.engine.token_rows import (
    Group,
    HeldGroups,
    TokenRows,
    collect_segments,
    segment_result,
    token_groups,
    tokens_held,
)

BLOCK_T = 1024
BLOCK_N = 1024  # decoder rows multiplied at a time


class _Rows(NamedTuple):
    """Folded token rows x and y, scaled."""

    x: Tensor  # [tokens, d_model] fp32
    y: Tensor
    x_norms: Tensor  # [tokens] fp64
    y_norms: Tensor

    def part(self, tokens: slice) -> _Rows:
        return _Rows(*(each[tokens] for each in self))


@dataclass(frozen=True)
class TokenScorer:
    """−Σ_t w_t (γ_t·d)((a_t − ā)·d) for one set of rows, or another reduction over tokens; memory
    O(BLOCK_N · BLOCK_T) beyond a group of rows."""

    groups: HeldGroups[_Rows]
    scale: float
    reduction: str

    @classmethod
    def prepare(
        cls,
        source: TokenRows,
        *,
        reduction: str = "sum",
        segments: Sequence[int] | None = None,
    ) -> TokenScorer:
        """Hold the folded rows in fp32: one rounding."""
        rows = source.near_one
        tokens, d_model = rows.shape
        groups = token_groups(tokens, tokens_held(8 * d_model), segments)
        return cls(HeldGroups(groups, partial(_hold, rows)), rows.unscale, reduction)

    def scores(self, rows: Tensor) -> Tensor:
        """fp64 [1, n] for rows [n, d_model]."""
        partial_scores = self.groups.each(lambda _, held: self._reduced(held, rows, None)[0])
        return combine(partial_scores, self.reduction)[None] * self.scale

    def scores_and_error(self, rows: Tensor, norms: Tensor) -> TileScores:
        """Scores with bounds; costs two more passes over the tile products than :meth:`scores`."""
        both = combine(
            self.groups.each(lambda _, held: self._reduced(held, rows, norms)), self.reduction
        )
        scores, error = both * self.scale
        return TileScores(scores[None], error[None])

    def statistics(self, rows: Tensor) -> SegmentStatistics:
        """Over segments, fp64 [n] for rows [n, d_model]."""
        results = self.groups.each(lambda group, held: _segments(group, held, rows))
        return collect_segments(self.groups.groups, results).scaled(self.scale)

    def _reduced(self, held: _Rows, rows: Tensor, norms: Tensor | None) -> Tensor:
        """fp64 [2, n]: reduced terms and, where ``norms`` are given, bounds on their errors."""
        results = []
        for start in range(0, rows.shape[0], BLOCK_N):
            some = slice(start, start + BLOCK_N)
            of_norms = None if norms is None else norms[some]
            blocks = _reduced_blocks(held, rows[some].float(), of_norms, self.reduction)
            results.append(combine(blocks, self.reduction))
        return torch.cat(results, 1) if results else rows.new_empty(2, 0, dtype=torch.float64)


def _hold(rows: TokenRows, group: Group) -> _Rows:
    x, y = rows.in_fp32(group.tokens)
    return _Rows(x, y, row_norms(x), row_norms(y))


def _products(held: _Rows, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Both [n, tokens] for rows fp32 [n, d_model]."""
    return blocked_product(rows, held.x.T), blocked_product(rows, held.y.T)


def _reduced_blocks(
    held: _Rows, rows: Tensor, norms: Tensor | None, reduction: str
) -> Iterator[Tensor]:
    for start in range(0, held.x.shape[0], BLOCK_T):
        block = held.part(slice(start, start + BLOCK_T))
        x, y = _products(block, rows)
        # A sum of bounds on terms bounds the error of any reduction of the terms.
        error = torch.zeros_like(x[:, 0], dtype=torch.float64)
        if norms is not None:
            error = _product_error(norms, x, y, block)
        yield torch.stack([reduce_terms(x.mul_(y), reduction), error])


def _segments(group: Group, held: _Rows, rows: Tensor) -> SegmentStatistics | Tensor:
    """Of the segments in a group or, of a piece of one, its sum [n]."""
    parts = [_segments_of(group, held, some.float()) for some in rows.split(BLOCK_N)]
    if group.offsets is None:
        return torch.cat([sums for sums in parts if isinstance(sums, Tensor)])
    means, spreads, counts = zip(
        *(part for part in parts if isinstance(part, SegmentStatistics)), strict=True
    )
    return SegmentStatistics(torch.cat(means), torch.cat(spreads), counts[0])


def _segments_of(group: Group, held: _Rows, rows: Tensor) -> SegmentStatistics | Tensor:
    def terms(block: Group) -> Tensor:
        x, y = _products(held.part(block.tokens), rows)
        return x.mul_(y)

    blocks = token_groups(held.x.shape[0], BLOCK_T, group.offsets)
    if group.offsets is None:
        return combine((reduce_terms(terms(block), "sum") for block in blocks), "sum")
    return collect_segments(blocks, (segment_result(block, terms(block)) for block in blocks))


def _product_error(norms: Tensor, x: Tensor, y: Tensor, rows: _Rows) -> Tensor:
    """Bound on |Σ_t fl(x_t)·fl(y_t) − x_t·y_t| per row of norm ``norms``, fp64 [n].

    With |δx_t| ≤ p_t := γ_n‖g_t‖‖d‖ + flushed (products below the smallest normal number) and q_t
    likewise for y: |xy − fl(x)fl(y)| ≤ p_t|fl(y)| + |fl(x)|q_t + p_t·q_t, plus one rounding of
    each product and one of their fp64 sum.
    """
    tokens, d_model = rows.x.shape
    relative = gamma(chain_length(d_model), torch.float32) * norms  # [n] fp64
    flushed = d_model * SMALLEST_NORMAL[torch.float32] * (1 + norms)
    abs_x, abs_y = x.abs(), y.abs()
    x_by_y, x_sum = _weighted_sums(abs_x, rows.y_norms)
    y_by_x, y_sum = _weighted_sums(abs_y, rows.x_norms)
    first_order = relative * (x_by_y + y_by_x) + flushed * (x_sum + y_sum)
    second_order = (
        relative.square() * float(rows.x_norms @ rows.y_norms)
        + relative * flushed * float(rows.x_norms.sum() + rows.y_norms.sum())
        + flushed.square() * tokens
    )
    products = abs_x.mul_(abs_y).sum(1, dtype=torch.float64)
    rounding = 2 * UNIT_ROUNDOFF[torch.float32] * products
    return first_order + second_order + rounding + tokens * SMALLEST_NORMAL[torch.float32]


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
        relative = gamma(chain_length(d_model) + 2, torch.float32)
        inverse = torch.tensor([1.0 / s for s in scales], dtype=torch.float64).to(moments.device)
        return cls(rounded, inverse, (relative * norm + lost) * inverse + accumulated)

    def scores(self, rows: Tensor) -> Tensor:
        """fp64 [B, n] for rows [n, d_model]."""
        rows = rows.float()
        per_moment = [
            blocked_product(rows, moment).mul_(rows).sum(1, dtype=torch.float64)
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
