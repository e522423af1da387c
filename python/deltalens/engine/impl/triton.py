"""Both forms on the Triton kernels, each with a bound on its rounding error.

A scorer is as accurate as fp32 arithmetic: float32 decoders are multiplied in fp32, 16-bit ones on
tensor cores with the other operand as a sum of three 16-bit parts. A screen uses one part, and
float32 decoders rounded to float16, so that it runs at the tensor cores' full rate; what the
rounding does to the scores is bounded by measured norms, so that a top-k screened by it is exact.

A tensor core sums products exactly only in part: the terms of a step are aligned to the largest
exponent among them and the running sum, and cut to 24 bits or more (Fasi, Higham, Mikaitis and
Pranesh, "Numerical behavior of NVIDIA tensor cores", 2021). With steps of four or more products a
dot product of length n is then off by at most n · 2⁻²² · Σ|x_j y_j|.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from deltalens.engine.impl.triton_operands import (
    OVER_ROUNDED,
    Operand,
    RoundedRows,
    operand_dtype,
    operands,
    part_count,
    scale_for,
    spectral_norm,
    with_contiguous_rows,
)
from deltalens.engine.numerics.precision import SMALLEST_NORMAL, gamma
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
from deltalens.kernels.configs import TileConfig, capability_of, tile_config
from deltalens.kernels.parts import split_parts
from deltalens.kernels.quadratic_form import fold_symmetric, quadratic_form
from deltalens.kernels.row_norms import row_norms as norms_of_contiguous
from deltalens.kernels.token_attribution import token_attribution

_FP32 = torch.float32
_TENSOR_CORE_UNIT = 2.0**-22
_PARTS_SLACK = 1 + 2.0**-6  # Σ_p |x_p| over |Σ_p x_p| for parts that halve 8 bits or more
_SLACK = 1 + 2.0**-30  # of the fp64 arithmetic on bounds


def row_norms(rows: Tensor) -> Tensor:
    """Euclidean norms, fp64 [n], of decoder rows [n, d_model] without a copy of them."""
    return norms_of_contiguous(with_contiguous_rows(rows))


def _config(like: Tensor, dtype: torch.dtype) -> TileConfig:
    aligned = like.shape[-1] * dtype.itemsize % 16 == 0
    return tile_config(capability_of(like), dtype, aligned=aligned)


def dot_error(length: int, dtype: torch.dtype, parts: int) -> float:
    """Bound on |fl(x·y) − x·y| / Σ|x_j y_j| in the kernels, y the sum of its parts."""
    if dtype == _FP32:
        return gamma(length + 2, _FP32)
    units = length * parts * _TENSOR_CORE_UNIT
    return units / (1 - units) * _PARTS_SLACK


@dataclass(frozen=True)
class QuadraticScorer:
    """d_iᵀ S_b d_i for B moments; memory O(tile + parts · B · d_model²)."""

    lower: Tensor  # [B, parts, d_model, d_model], folded and scaled
    config: TileConfig
    scales: Tensor  # fp64 [B]: what scores are multiplied with
    error_per_square: Tensor  # fp64 [B], of a row that is multiplied as it is
    spectral: Tensor  # fp64 [B], bound on ‖S_b‖₂, 0 where rows are never rounded

    @classmethod
    def prepare(
        cls,
        moments: Tensor,
        accumulated: Tensor,
        *,
        dtype: torch.dtype,
        screen: bool = False,
        width: float = 0.0,
    ) -> QuadraticScorer:
        """From symmetric fp64 moments [B, d_model, d_model], for decoder rows of ``dtype``.

        ``accumulated`` [B] bounds the spectral norm of each moment's own rounding error. width: of
        a screen's errors over the spread of scores, below which a narrower bound is not looked for.
        """
        operand = operand_dtype(dtype, screen=screen)
        parts = part_count(operand, screen=screen)
        config = _config(moments, operand)
        spreads = [width * _spread(moment) for moment in moments]
        prepared = [
            _prepare_moment(moment, operand, parts, config, enough)
            for moment, enough in zip(moments, spreads, strict=True)
        ]
        scales, error = torch.tensor([p[1:] for p in prepared], dtype=torch.float64).T
        spectral = torch.zeros_like(error)
        if operand != dtype:
            norms = [
                spectral_norm(moment, enough=enough * OVER_ROUNDED)
                for moment, enough in zip(moments, spreads, strict=True)
            ]
            spectral = torch.tensor(norms, dtype=torch.float64)
        device = moments.device
        return cls(
            torch.stack([p[0] for p in prepared]),
            config,
            scales.to(device),
            error.to(device) + accumulated,
            spectral.to(device) + accumulated,
        )

    def scores(self, rows: Tensor) -> Tensor:
        """fp64 [B, n] for rows [n, d_model]."""
        return self.scores_and_error(rows, row_norms(rows)).scores

    def scores_and_error(self, rows: Tensor, norms: Tensor) -> TileScores:
        """Scores with bounds; rounding a row by δ adds ‖S‖₂ (2‖d‖‖δ‖ + ‖δ‖²)."""
        results = [self._score(part) for part in operands(rows, norms, self.lower.dtype)]
        scores, errors = zip(*results, strict=True)
        return TileScores(torch.cat(scores, 1), torch.cat(errors, 1) * _SLACK)

    def _score(self, part: Operand) -> TileScores:
        scores = (
            quadratic_form(part.rows, self.lower, config=self.config).double()
            * self.scales[:, None]
        )
        _, parts, width, _ = self.lower.shape
        flushed = 4 * parts * width**2 * SMALLEST_NORMAL[_FP32] * (1 + part.norms)
        error = self.error_per_square[:, None] * part.norms.square()
        error += self.spectral[:, None] * part.lost * (2 * part.norms + part.lost)
        error += self.scales[:, None] * flushed
        return TileScores(scores * part.unscale, error * part.unscale)


def _spread(moment: Tensor) -> float:
    """Of the scores of rows of norm 1 in all directions."""
    return 2**0.5 * float(torch.linalg.matrix_norm(moment)) / moment.shape[0]


def _prepare_moment(
    moment: Tensor, dtype: torch.dtype, parts: int, config: TileConfig, enough: float
) -> tuple[Tensor, float, float]:
    """Parts of the folded moment, the scale of its scores, and |score − exact| / ‖d‖².

    The kernel sums products over a chain, multiplies with a column block of d and sums that, and
    adds up chains, column blocks and splits in fp32. Its error is at most the sum of the relative
    errors times |d|ᵀ|Ŝ||d| ≤ ‖Ŝ‖_F ‖d‖². S − Ŝ is measured: by its Frobenius norm, or where it is
    large, with one 16-bit part, by a bound on its spectral norm.
    """
    scale = scale_for(float(moment.abs().max()), dtype)
    lost = fold_symmetric(moment * scale)
    norm = float(torch.linalg.matrix_norm(moment)) * scale * (1 + 2.0**-7)
    lower = split_parts(lost, dtype, parts)
    for part in lower:
        lost -= part.double()
    lost = (lost + lost.T) / 2
    lost_norm = (
        spectral_norm(lost, enough=enough * scale)
        if parts == 1 and dtype != _FP32
        else float(torch.linalg.matrix_norm(lost))
    )
    width = moment.shape[0]
    relative = dot_error(min(width, config.chain), dtype, parts)
    column_blocks = -(-width // config.columns)
    sums = config.columns + column_blocks * (2 + -(-width // config.chain))
    relative += gamma(sums + 2, _FP32) * (1 + relative) * _PARTS_SLACK
    return lower, 1.0 / scale, (relative * norm + lost_norm) / scale


@dataclass(frozen=True)
class TokenScorer:
    """Σ_t (x_t·d)(y_t·d) for x = −w γ and y = a − ā, both scaled; or another reduction over
    t; memory O(tile + parts of one group of rows).

    With p_t ≥ |fl(x_t·d) − x_t·d| and q_t likewise for y, each term is off by at most
    p_t|fl(y)| + |fl(x)|q_t + p_t·q_t, where p_t = r‖x_t‖‖d‖. By Cauchy–Schwarz the sum over tokens
    is at most r‖d‖ (‖X‖_F √Σfl(y)² + ‖Y‖_F √Σfl(x)²) + r²‖d‖² ‖X‖_F ‖Y‖_F: the kernel returns the
    two sums of squares. Adding up the terms costs a relative γ of √(Σfl(x)² Σfl(y)²). A sum of
    bounds on terms bounds the error of any reduction of them.
    """

    source: RoundedRows
    groups: HeldGroups[tuple[Tensor, Tensor]]  # x and y [parts, tokens, d_model]
    reduction: str
    config: TileConfig
    relative: float  # r

    @classmethod
    def prepare(
        cls,
        source: TokenRows,
        *,
        dtype: torch.dtype,
        screen: bool = False,
        width: float = 0.0,
        reduction: str = "sum",
        segments: Sequence[int] | None = None,
    ) -> TokenScorer:
        """Hold the folded rows in parts, for decoder rows of ``dtype``.

        A screen is for sums only: it bounds what rounding does to their moment, by ``width`` times
        the spread of scores or as closely as it can.
        """
        operand = operand_dtype(dtype, screen=screen)
        parts = part_count(operand, screen=screen)
        rounded = RoundedRows.measure(
            source, dtype=operand, parts=parts, rows_rounded=operand != dtype, width=width
        )
        tokens, d_model = source.shape
        held = tokens_held(2 * parts * operand.itemsize * d_model)
        groups = HeldGroups(token_groups(tokens, held, segments), rounded.parts_of)
        relative = dot_error(d_model, operand, parts)
        return cls(rounded, groups, reduction, _config(source.acts, operand), relative)

    def scores(self, rows: Tensor) -> Tensor:
        """fp64 [1, n] for rows [n, d_model]."""
        return self.scores_and_error(rows, row_norms(rows)).scores

    def scores_and_error(self, rows: Tensor, norms: Tensor) -> TileScores:
        """Scores with bounds; rounding a row by δ adds ‖S‖₂ (2‖d‖‖δ‖ + ‖δ‖²)."""
        results = [self._score(part) for part in operands(rows, norms, self.source.dtype)]
        scores, errors = zip(*results, strict=True)
        return TileScores(torch.cat(scores)[None], torch.cat(errors)[None] * _SLACK)

    def statistics(self, rows: Tensor) -> SegmentStatistics:
        """Over segments, fp64 [n] for rows [n, d_model]."""
        rows = with_contiguous_rows(rows)

        def of_group(group: Group, held: tuple[Tensor, Tensor]) -> SegmentStatistics | Tensor:
            if group.offsets is None:
                return token_attribution(rows, *held, config=self.config).scores.double()
            result = token_attribution(
                rows,
                *held,
                reduction="segments",
                segments=torch.tensor(group.offsets),
                config=self.config,
            )
            assert result.spread is not None
            mean, spread = result.scores.double(), result.spread.double()
            return SegmentStatistics(mean, spread, len(group.offsets) - 1)

        results = self.groups.each(of_group)
        return collect_segments(self.groups.groups, results).scaled(self.source.scale)

    def _score(self, part: Operand) -> tuple[Tensor, Tensor]:
        def of_group(_: Group, held: tuple[Tensor, Tensor]) -> Tensor:
            return self._reduced(part, *held)

        scores, error = combine(self.groups.each(of_group), self.reduction)
        source = self.source
        error += (
            (self.relative * part.norms).square() * (source.x_norm * source.y_norm)
            + source.lost * part.norms.square()
            + source.spectral * part.lost * (2 * part.norms + part.lost)
        )
        unscale = part.unscale * source.scale
        return scores * unscale, error * unscale

    def _reduced(self, part: Operand, x: Tensor, y: Tensor) -> Tensor:
        """Reduced products of a group, and the part of their error that depends on them; [2, n]."""
        source, tiny = self.source, SMALLEST_NORMAL[_FP32]
        result = token_attribution(
            part.rows, x, y, reduction=self.reduction, squares=True, config=self.config
        )
        assert result.sum_xx is not None
        assert result.sum_yy is not None
        _, tokens, width = x.shape
        sums = gamma(self.config.columns + -(-tokens // self.config.columns) + 3, _FP32)
        x_size, y_size = (
            ((total.double() + tokens * tiny) * (1 + 2 * sums)).sqrt()
            for total in (result.sum_xx, result.sum_yy)
        )
        error = self.relative * part.norms * (source.x_norm * y_size + source.y_norm * x_size)
        error += sums * x_size * y_size
        flushed = 4 * len(x) * width * tiny * (1 + part.norms)
        error += tokens * flushed * (x_size + y_size + flushed + 1)
        return torch.stack([result.scores.double(), error])
