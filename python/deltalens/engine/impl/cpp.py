"""Both forms on the compiled CPU kernels, each with a bound on its rounding error.

The kernels sum products in fp32 over slabs of a row, add the slabs in fp32, and multiply and reduce
the results in fp64, where products of fp32 numbers are exact. A scorer takes decoders of every
dtype in fp32 arithmetic. A screen is for bfloat16 decoders only: on processors that multiply pairs
of bfloat16 numbers it runs at twice the speed, with the other operand rounded to bfloat16, and it
bounds what that rounding does to the scores by a measured spectral norm, so that a top-k screened
by it is still exact.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from deltalens.engine.decoder import Decoder
from deltalens.engine.extension import as_array, cpu_extension, cpu_level
from deltalens.engine.norms import frobenius_bound, largest_magnitude, row_norms
from deltalens.engine.precision import (
    SMALLEST_NORMAL,
    UNIT_ROUNDOFF,
    gamma,
    power_of_two_scale,
)
from deltalens.engine.spectral import spectral_norm_bound
from deltalens.engine.tile import TileScores

_FP32 = torch.float32
_SLAB = 256  # block_depth in csrc/kernels.h
_BLOCK_T = 1024  # tokens prepared at a time; a multiple of the kernels' panels
_SLACK = 1 + 2.0**-30  # of the fp64 arithmetic on bounds


def _chain_length(d_model: int, screen: bool) -> int:
    """Roundings a dot product goes through, in fp32 or over pairs of bfloat16.

    The pairs' instruction adds its two (exact) products one after the other, each rounded to the
    nearest fp32 number (VDPBF16PS, Intel 64 and IA-32 Software Developer's Manual, volume 2).
    """
    units = -(-d_model // 2) if screen else d_model
    return (2 if screen else 1) * min(units, _SLAB) + -(-units // _SLAB)


def _flushed(d_model: int, norms: Tensor) -> Tensor:
    """What a dot product with a row can lose to numbers below the smallest normal one.

    Pairs are always multiplied with subnormal operands taken as zero and subnormal results set to
    zero; fp32 may be, depending on the process. The other operand is scaled to be at most 4.
    """
    return 8 * d_model * SMALLEST_NORMAL[_FP32] * (1 + norms)


def quadratic_screen_pays(decoder: Decoder) -> bool:
    """Whether the decoder is so long that a screen saves more than its bound costs.

    The bound costs 4·d³ FLOP in torch, the screen saves the time of N·d²/2 of the kernels' own.
    """
    return _has_screen(decoder) and decoder.n_latents > 32 * decoder.d_model


def token_screen_pays(decoder: Decoder, tokens: int) -> bool:
    """The same for the token form, whose bound costs 4·R·d² FLOP more and which saves 2·N·R·d."""
    d_model = decoder.d_model
    return _has_screen(decoder) and decoder.n_latents * tokens > 12 * d_model * (d_model + tokens)


def _has_screen(decoder: Decoder) -> bool:
    return decoder.dtype == torch.bfloat16 and cpu_level() == "avx512_bf16"


@dataclass(frozen=True)
class TokenScorer:
    """Σ_t (x_t·d)(y_t·d) for x = −w γ and y = a − ā, both scaled; memory two fp32 copies of the
    rows (or bfloat16 ones, in a screen).

    With p_t ≥ |fl(x_t·d) − x_t·d| and q_t likewise for y, each term is off by at most
    p_t|fl(y)| + |fl(x)|q_t + p_t·q_t. Here p_t = γ_n‖x_t‖‖d‖ + flushed: the kernels return
    Σ_t γ_n(‖x_t‖|fl(y)| + ‖y_t‖|fl(x)|), the rest is bounded by ‖d‖ and norms of the rows.
    """

    form: Any  # deltalens._cpu.TokenForm
    scale: float
    d_model: int
    tokens: int
    relative: float  # γ_n
    norm_sum: float  # Σ_t ‖x_t‖ + ‖y_t‖
    norm_product: float  # Σ_t ‖x_t‖‖y_t‖
    rounding: float  # bound on ‖Σ_t x_t y_tᵀ − what the kernels hold‖₂ after symmetrising

    @classmethod
    def prepare(
        cls, acts: Tensor, grads: Tensor, baseline: Tensor, weights: Tensor, *, screen: bool = False
    ) -> TokenScorer:
        """Fold weights and baseline into the rows (fp64, then one rounding to fp32)."""
        tokens, d_model = acts.shape
        rows = _TokenRows(acts, grads, baseline.double(), weights.double())
        scale_x, scale_y = rows.scales()
        relative = gamma(_chain_length(d_model, screen), _FP32)
        form = _extension().TokenForm(tokens, d_model, cpu_level(), screen)
        norm_sum = norm_product = 0.0
        lost = _LostMoment(d_model) if screen else None
        for start, x, y in rows.blocks():
            x, y = (x * scale_x).float(), (y * scale_y).float()
            if lost is not None:
                x, y = lost.round(x, y)
            x_norms, y_norms = row_norms(x), row_norms(y)
            form.set(
                start,
                x.numpy(),
                y.numpy(),
                (relative * x_norms).numpy(),
                (relative * y_norms).numpy(),
            )
            norm_sum += float(x_norms.sum() + y_norms.sum())
            norm_product += float(x_norms @ y_norms)
        # One rounding of each of x and y to fp32.
        rounding = 2.5 * UNIT_ROUNDOFF[_FP32] * norm_product + (lost.bound() if lost else 0.0)
        scale = 1.0 / (scale_x * scale_y)
        return cls(form, scale, d_model, tokens, relative, norm_sum, norm_product, rounding)

    def scores(self, rows: Tensor) -> Tensor:
        """fp64 [1, n] for rows [n, d_model]."""
        sums, _ = self.form.scan(as_array(rows), torch.get_num_threads(), False)
        return torch.from_numpy(sums)[None] * self.scale

    def scores_and_error(self, rows: Tensor, norms: Tensor) -> TileScores:
        """Scores with bounds, in the same pass."""
        sums, slopes = self.form.scan(as_array(rows), torch.get_num_threads(), True)
        flushed = _flushed(self.d_model, norms)
        per_square = (
            self.rounding
            + (self.relative**2 + gamma(self.tokens + 64, torch.float64)) * self.norm_product
        )
        # |fl(x)| ≤ 2‖x‖‖d‖ + flushed, and γ_n < 1.
        tiny = flushed * (3 * self.norm_sum * norms + 3 * self.tokens * flushed)
        error = norms * torch.from_numpy(slopes) + norms.square() * per_square + tiny
        return TileScores(
            torch.from_numpy(sums)[None] * self.scale, (error * (self.scale * _SLACK))[None]
        )


@dataclass(frozen=True)
class _TokenRows:
    """x = −w γ and y = a − ā in fp64, a block of tokens at a time."""

    acts: Tensor
    grads: Tensor
    baseline: Tensor  # fp64
    weights: Tensor  # fp64

    def blocks(self) -> Iterator[tuple[int, Tensor, Tensor]]:
        """(first token, x, y), x and y fp64 [tokens of the block, d_model]."""
        for start in range(0, self.acts.shape[0], _BLOCK_T):
            part = slice(start, start + _BLOCK_T)
            x = -self.weights[part, None] * self.grads[part].double()
            yield start, x, self.acts[part].double() - self.baseline

    def scales(self) -> tuple[float, float]:
        """Powers of two that bring the largest magnitudes of x and of y near 1."""
        largest_x = largest_y = 0.0
        for _, x, y in self.blocks():
            largest_x = max(largest_x, largest_magnitude(x))
            largest_y = max(largest_y, largest_magnitude(y))
        return power_of_two_scale(largest_x), power_of_two_scale(largest_y)


class _LostMoment:
    """What rounding x and y to bfloat16 takes from Σ_t x_t y_tᵀ.

    With x = x̂ + e and y = ŷ + f it is Σ_t e yᵀ + x̂ fᵀ: nearly random signs, so its spectral norm
    is far below the sum of its terms' norms.
    """

    def __init__(self, d_model: int) -> None:
        self._lost = torch.zeros(d_model, d_model, dtype=torch.float64)
        self._block = torch.empty(d_model, d_model)  # what a block of tokens loses
        self._magnitude = 0.0
        self._tokens = 0

    def round(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """x and y [tokens, d_model] rounded; the differences to fp32 x and y are exact."""
        rounded_x, rounded_y = x.bfloat16().float(), y.bfloat16().float()
        lost_x, lost_y = x - rounded_x, y - rounded_y
        self._lost += torch.mm(lost_x.T, y, out=self._block)
        self._lost += torch.mm(rounded_x.T, lost_y, out=self._block)
        self._magnitude += float(row_norms(lost_x).norm() * row_norms(y).norm())
        self._magnitude += float(row_norms(rounded_x).norm() * row_norms(lost_y).norm())
        self._tokens += x.shape[0]
        return rounded_x, rounded_y

    def bound(self) -> float:
        """Bound on the spectral norm of the symmetrised loss, roundings of its sum included."""
        width = self._lost.shape[0]
        rounding = gamma(_BLOCK_T + 2, _FP32) * self._magnitude
        flushed = 4 * width * self._tokens * SMALLEST_NORMAL[_FP32]
        symmetric = (self._lost + self._lost.T).float() / 2
        return spectral_norm_bound(symmetric, squarings=3) + rounding + flushed


@dataclass(frozen=True)
class QuadraticScorer:
    """d_iᵀ S_b d_i for B moments, one after the other over a tile of rows; memory half a d_model²
    fp32 matrix per moment."""

    forms: list[Any]  # deltalens._cpu.QuadraticForm
    scales: Tensor  # fp64 [B]
    error_per_square: Tensor  # fp64 [B]: |score − exact| ≤ error_per_square · ‖d_i‖² + flushed

    @classmethod
    def prepare(
        cls, moments: Tensor, accumulated: Tensor, *, screen: bool = False
    ) -> QuadraticScorer:
        """From symmetric fp64 moments [B, d_model, d_model].

        ``accumulated`` [B] bounds the spectral norm of each moment's own rounding error.
        """
        prepared = [_prepare_moment(moment, screen) for moment in moments]
        scales = torch.tensor([scale for _, scale, _ in prepared], dtype=torch.float64)
        error = torch.tensor([error for _, _, error in prepared], dtype=torch.float64)
        return cls([form for form, _, _ in prepared], scales, error * scales + accumulated)

    def scores(self, rows: Tensor) -> Tensor:
        """fp64 [B, n] for rows [n, d_model]."""
        array, threads = as_array(rows), torch.get_num_threads()
        sums = [torch.from_numpy(form.scan(array, threads)) for form in self.forms]
        return torch.stack(sums) * self.scales[:, None]

    def scores_and_error(self, rows: Tensor, norms: Tensor) -> TileScores:
        """Scores with bounds for rows [n, d_model] of norms [n] (fp64)."""
        flushed = 2 * rows.shape[1] * _flushed(rows.shape[1], norms) * (1 + norms)
        error = self.error_per_square[:, None] * norms.square() + flushed * self.scales[:, None]
        return TileScores(self.scores(rows), error * _SLACK)


def _prepare_moment(moment: Tensor, screen: bool) -> tuple[Any, float, float]:
    """The packed moment Ŝ, the scale of its scores, and a bound on |score − exact| / ‖d‖² in Ŝ's
    scale.

    The kernels' own error is at most γ_n |d|ᵀ|Ŝ||d| ≤ γ_n ‖Ŝ‖_F ‖d‖²; the fp64 sum counts as one
    more rounding, and so does that of S to fp32. In a screen, ‖S − Ŝ‖₂ is measured and bounded.
    """
    scale = power_of_two_scale(largest_magnitude(moment))
    rounded, lost = _rounded(moment, scale, torch.bfloat16 if screen else _FP32)
    relative = gamma(_chain_length(moment.shape[0], screen) + 3, _FP32)
    form = _extension().QuadraticForm(rounded.numpy(), cpu_level(), screen)
    error = relative * frobenius_bound(rounded) + (spectral_norm_bound(lost) if screen else 0.0)
    return form, 1.0 / scale, error


def _rounded(moment: Tensor, scale: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """fp64 moment · scale rounded to dtype, and what that took from it; both as fp32 [d, d]."""
    rounded, lost = torch.empty_like(moment, dtype=_FP32), torch.empty_like(moment, dtype=_FP32)
    # A few rows at a time: fp64 copies of a whole moment cost more than the arithmetic.
    for start in range(0, moment.shape[0], 256):
        rows = slice(start, start + 256)
        scaled = moment[rows] * scale
        rounded[rows] = scaled.to(dtype)
        lost[rows] = scaled - rounded[rows]
    return rounded, lost


def _extension() -> Any:
    extension = cpu_extension()
    assert extension is not None
    return extension
