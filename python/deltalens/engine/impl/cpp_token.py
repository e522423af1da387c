"""The token form on the compiled CPU kernels, with a bound on its rounding error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from deltalens.engine.impl.cpp import SLACK, chain_length, extension, flushed_in_dot
from deltalens.engine.numerics.extension import as_array, cpu_level
from deltalens.engine.numerics.norms import row_norms
from deltalens.engine.numerics.precision import SMALLEST_NORMAL, UNIT_ROUNDOFF, gamma
from deltalens.engine.numerics.spectral import BF16_ROUNDOFF, spectral_norm_bound
from deltalens.engine.reductions import SegmentStatistics, combine
from deltalens.engine.tile import TileScores
from deltalens.engine.token_rows import (
    Group,
    HeldGroups,
    TokenRows,
    collect_segments,
    token_groups,
    tokens_held,
)

_FP32 = torch.float32
_LOST_TOKENS = 1024  # whose loss is measured at a time
_LOST_ELEMENTS = 1 << 20


@dataclass(frozen=True)
class TokenScorer:
    """Σ_t (x_t·d)(y_t·d) for x = −w γ and y = a − ā, both scaled, or another reduction over t;
    memory one group of rows in fp32 (or bfloat16, in a screen).

    With p_t ≥ |fl(x_t·d) − x_t·d| and q_t likewise for y, each term is off by at most
    p_t|fl(y)| + |fl(x)|q_t + p_t·q_t. Here p_t = γ_n‖x_t‖‖d‖ + flushed: the kernels return
    Σ_t γ_n(‖x_t‖|fl(y)| + ‖y_t‖|fl(x)|), the rest is bounded by ‖d‖ and norms of the rows. The
    sum of the terms' bounds bounds every reduction; for a maximum, so does their maximum.

    A screen holds x − x̄ and y − ȳ and adds R (x̄·d)(ȳ·d) in fp64: what all rows have in common
    would be rounded alike in all of them, and add up. (The means are fp32 numbers, so Σ_t x_t − x̄
    is not quite zero: at most u R ‖x̄‖, and in fp64 γ Σ_t ‖x_t‖, which ``rounding`` counts.)
    """

    groups: HeldGroups[Any]  # deltalens._cpu.TokenForm
    reduction: str
    scale: float
    d_model: int
    tokens: int
    relative: float  # γ_n
    norm_sum: float  # Σ_t ‖x_t‖ + ‖y_t‖
    norm_product: float  # Σ_t ‖x_t‖‖y_t‖, for a maximum the largest
    rounding: float  # what rounding x and y takes at most from a score, for a row of norm 1
    centre: tuple[Tensor, Tensor] | None = None  # x̄, ȳ

    @classmethod
    def prepare(
        cls,
        source: TokenRows,
        *,
        screen: bool = False,
        width: float = 0.0,
        reduction: str = "sum",
        segments: Sequence[int] | None = None,
    ) -> TokenScorer:
        """Hold the folded rows in fp32, one rounding, or in a screen in bfloat16.

        A screen is for sums only: it bounds what rounding to bfloat16 does to their moment, by
        ``width`` times the spread of scores or as closely as it can.
        """
        rows = source.near_one.centred() if screen else source.near_one
        tokens, d_model = rows.shape
        held = tokens_held((4 if screen else 8) * d_model)
        relative = gamma(chain_length(d_model, screen), _FP32)
        x_norms, y_norms = _norms(rows, screen)
        slopes = relative * x_norms, relative * y_norms
        products = x_norms * y_norms
        norm_product = float(products.max() if reduction == "max" else products.sum())
        rounding = 2.5 * UNIT_ROUNDOFF[_FP32] * norm_product  # of each of x and y to fp32
        if screen:
            spread = float(products.norm()) / d_model  # for tokens and rows in all directions
            rounding += _lost(rows, width * spread)
        if rows.centre is not None:
            rounding += _centre_rounding(rows.centre, x_norms, y_norms)
        return cls(
            HeldGroups(
                token_groups(tokens, held, segments),
                partial(_packed, rows, slopes, reduction, screen),
            ),
            reduction,
            rows.unscale,
            d_model,
            tokens,
            relative,
            float(x_norms.sum() + y_norms.sum()),
            norm_product,
            rounding,
            rows.centre,
        )

    def scores(self, rows: Tensor) -> Tensor:
        """fp64 [1, n] for rows [n, d_model]."""
        return self._scan(rows, slopes=False)[:1] * self.scale

    def scores_and_error(self, rows: Tensor, norms: Tensor) -> TileScores:
        """Scores with bounds, in the same pass."""
        totals, sloped = self._scan(rows, slopes=True)
        flushed = flushed_in_dot(self.d_model, norms)
        per_square = (
            self.rounding
            + (self.relative**2 + gamma(self.tokens + 64, torch.float64)) * self.norm_product
        )
        # |fl(x)| ≤ 2‖x‖‖d‖ + flushed, and γ_n < 1.
        tiny = flushed * (3 * self.norm_sum * norms + 3 * self.tokens * flushed)
        error = norms * sloped + norms.square() * per_square + tiny
        return TileScores(totals[None] * self.scale, (error * (self.scale * SLACK))[None])

    def statistics(self, rows: Tensor) -> SegmentStatistics:
        """Over segments, fp64 [n] for rows [n, d_model]."""
        array, threads = as_array(rows), torch.get_num_threads()

        def of_group(group: Group, form: Any) -> SegmentStatistics | Tensor:
            if group.offsets is None:
                return torch.from_numpy(form.scan(array, threads, False)[0])
            mean, spread = map(torch.from_numpy, form.statistics(array, threads))
            return SegmentStatistics(mean, spread, len(group.offsets) - 1)

        results = self.groups.each(of_group)
        return collect_segments(self.groups.groups, results).scaled(self.scale)

    def _scan(self, rows: Tensor, *, slopes: bool) -> Tensor:
        """The reduced products, and where asked for the slopes'; fp64 [1 or 2, n]."""
        array, threads = as_array(rows), torch.get_num_threads()

        def of_group(_: Group, form: Any) -> Tensor:
            found = form.scan(array, threads, slopes)
            return torch.stack([torch.from_numpy(each) for each in found[: 1 + slopes]])

        totals = combine(self.groups.each(of_group), self.reduction)
        if self.centre is not None:
            totals[0] += self.tokens * _product_of_means(rows, self.centre)
        return totals


def _product_of_means(rows: Tensor, centre: tuple[Tensor, Tensor]) -> Tensor:
    """(x̄·d)(ȳ·d), fp64 [n]."""
    array, threads = as_array(rows), torch.get_num_threads()
    of_x, of_y = (
        torch.from_numpy(extension().row_dots(array, mean.float().numpy(), cpu_level(), threads))
        for mean in centre
    )
    return of_x * of_y


def _centre_rounding(centre: tuple[Tensor, Tensor], x_norms: Tensor, y_norms: Tensor) -> float:
    """What the means' rounding and their product take at most from a score, for a row of norm 1."""
    tokens, width = x_norms.shape[0], centre[0].shape[0]
    of_x, of_y = (float(mean.norm()) for mean in centre)
    sum_x, sum_y = (float(norms.sum()) for norms in (x_norms, y_norms))
    relative = gamma(2 * width + tokens + 16, torch.float64)
    summed = relative * ((sum_x + tokens * of_x) * of_y + of_x * (sum_y + tokens * of_y))
    return 2 * (summed + 2 * UNIT_ROUNDOFF[_FP32] * tokens * of_x * of_y)


def _packed(
    rows: TokenRows, slopes: tuple[Tensor, Tensor], reduction: str, screen: bool, group: Group
) -> Any:
    """A deltalens._cpu.TokenForm of the group's tokens."""
    first, stop = group.tokens.start, group.tokens.stop
    offsets = group.offsets or [0, stop - first]
    form = extension().TokenForm(offsets, rows.shape[1], cpu_level(), screen, reduction)
    of_x, of_y = (each.numpy() for each in slopes)
    for part, x, y in rows.blocks(group.tokens):
        x, y = _rounded(x, screen), _rounded(y, screen)
        form.set(part.start - first, x.numpy(), y.numpy(), of_x[part], of_y[part])
    return form


def _norms(rows: TokenRows, screen: bool) -> tuple[Tensor, Tensor]:
    """At least ‖x_t‖ and ‖y_t‖ as the kernels hold the rows, fp64 [tokens]."""
    norms = torch.empty(2, rows.shape[0], dtype=torch.float64)
    for part, x, y in rows.blocks():
        torch.linalg.vector_norm(x, dim=1, out=norms[0, part])
        torch.linalg.vector_norm(y, dim=1, out=norms[1, part])
    norms *= 1 + 1.01 * (BF16_ROUNDOFF if screen else UNIT_ROUNDOFF[_FP32])
    return norms[0], norms[1]


def _rounded(values: Tensor, screen: bool) -> Tensor:
    """fp64 rounded to fp32, and in a screen to bfloat16."""
    rounded = values.float()
    return rounded.bfloat16().float() if screen else rounded


def _lost(rows: TokenRows, enough: float) -> float:
    lost = _LostMoment(rows.shape[1])
    for _, x, y in rows.blocks(elements=_LOST_ELEMENTS):
        lost.add(x.float(), y.float())
    return lost.bound(enough)


class _LostMoment:
    """What rounding x and y to bfloat16 takes from Σ_t x_t y_tᵀ.

    With x = x̂ + e and y = ŷ + f it is Σ_t e yᵀ + x̂ fᵀ: nearly random signs, so its spectral norm
    is far below the sum of its terms' norms.
    """

    def __init__(self, d_model: int) -> None:
        self._lost = torch.zeros(d_model, d_model)
        self._magnitude = 0.0
        self._tokens = 0
        self._blocks = 0

    def add(self, x: Tensor, y: Tensor) -> None:
        """Up to _LOST_TOKENS rows x and y, fp32 [tokens, d_model]; the differences are exact."""
        rounded_x, rounded_y = x.bfloat16().float(), y.bfloat16().float()
        lost_x, lost_y = x - rounded_x, y - rounded_y
        self._lost.addmm_(lost_x.T, y).addmm_(rounded_x.T, lost_y)
        self._magnitude += float(row_norms(lost_x).norm() * row_norms(y).norm())
        self._magnitude += float(row_norms(rounded_x).norm() * row_norms(lost_y).norm())
        self._tokens += x.shape[0]
        self._blocks += 1

    def bound(self, enough: float) -> float:
        """Bound on the spectral norm of the symmetrised loss, roundings of its sum included; no
        closer than ``enough`` needs."""
        width = self._lost.shape[0]
        # Of a block's products, of adding blocks up, and of adding the transpose.
        rounding = gamma(_LOST_TOKENS + 2 * self._blocks + 4, _FP32) * self._magnitude
        flushed = 4 * width * self._tokens * SMALLEST_NORMAL[_FP32]
        symmetric = self._lost.add_(self._lost.T.clone()).div_(2)
        return spectral_norm_bound(symmetric, enough=enough) + rounding + flushed
