"""The quadratic form on the compiled CPU kernels, with a bound on its rounding error, and what
it shares with the token form.

The kernels sum products in fp32 over slabs of a row, add the slabs in fp32, and multiply and reduce
the results in fp64, where products of fp32 numbers are exact. A scorer takes decoders of every
dtype in fp32 arithmetic. A screen is for bfloat16 decoders only: on processors that multiply pairs
of bfloat16 numbers it runs at twice the speed, with the other operand rounded to bfloat16, and it
bounds what that rounding does to the scores by a measured spectral norm, so that a top-k screened
by it is still exact.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from deltalens.engine.numerics.extension import as_array, cpu_extension, cpu_level
from deltalens.engine.numerics.norms import frobenius_bound, largest_magnitude
from deltalens.engine.numerics.precision import (
    SMALLEST_NORMAL,
    gamma,
    power_of_two_scale,
)
from deltalens.engine.numerics.spectral import spectral_norm_bound
from deltalens.engine.tile import TileScores

_FP32 = torch.float32
_SCALED_ROWS = 256
_SLAB = 256  # block_depth in csrc/kernels.h
SLACK = 1 + 2.0**-30  # of the fp64 arithmetic on bounds


def chain_length(d_model: int, screen: bool) -> int:
    """Roundings a dot product goes through, in fp32 or over pairs of bfloat16.

    The pairs' instruction adds its two (exact) products one after the other, each rounded to the
    nearest fp32 number (VDPBF16PS, Intel 64 and IA-32 Software Developer's Manual, volume 2).
    """
    units = -(-d_model // 2) if screen else d_model
    return (2 if screen else 1) * min(units, _SLAB) + -(-units // _SLAB)


def flushed_in_dot(d_model: int, norms: Tensor) -> Tensor:
    """What a dot product with a row can lose to numbers below the smallest normal one.

    Pairs are always multiplied with subnormal operands taken as zero and subnormal results set to
    zero; fp32 may be, depending on the process. The other operand is scaled to be at most 4.
    """
    return 8 * d_model * SMALLEST_NORMAL[_FP32] * (1 + norms)


def has_screen(dtype: torch.dtype) -> bool:
    """Whether decoders of ``dtype`` can be screened, over pairs of bfloat16 numbers."""
    return dtype == torch.bfloat16 and cpu_level() == "avx512_bf16"


@dataclass(frozen=True)
class QuadraticScorer:
    """d_iᵀ S_b d_i for B moments, one after the other over a tile of rows; memory half a d_model²
    fp32 matrix per moment."""

    forms: list[Any]  # deltalens._cpu.QuadraticForm
    scales: Tensor  # fp64 [B]
    error_per_square: Tensor  # fp64 [B]: |score − exact| ≤ error_per_square · ‖d_i‖² + flushed

    @classmethod
    def prepare(
        cls,
        moments: Tensor,
        accumulated: Tensor,
        *,
        screen: bool = False,
        width: float = 0.0,
    ) -> QuadraticScorer:
        """From symmetric fp64 moments [B, d_model, d_model].

        ``accumulated`` [B] bounds the spectral norm of each moment's own rounding error. width: of
        a screen's errors over the spread of scores, below which a narrower bound is not looked for.
        """
        prepared = [_prepare_moment(moment, screen, width) for moment in moments]
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
        flushed = 2 * rows.shape[1] * flushed_in_dot(rows.shape[1], norms) * (1 + norms)
        error = self.error_per_square[:, None] * norms.square() + flushed * self.scales[:, None]
        return TileScores(self.scores(rows), error * SLACK)


def _prepare_moment(moment: Tensor, screen: bool, width: float) -> tuple[Any, float, float]:
    """The packed moment Ŝ, the scale of its scores, and a bound on |score − exact| / ‖d‖² in Ŝ's
    scale.

    The kernels' own error is at most γ_n |d|ᵀ|Ŝ||d| ≤ γ_n ‖Ŝ‖_F ‖d‖²; the fp64 sum counts as one
    more rounding, and so does that of S to fp32. In a screen, ‖S − Ŝ‖₂ is measured and bounded.
    """
    scale = power_of_two_scale(largest_magnitude(moment))
    rounded = torch.empty_like(moment, dtype=_FP32)
    for rows, scaled in _scaled_rows(moment, scale):
        rounded[rows] = scaled.to(torch.bfloat16 if screen else _FP32)
    d_model = moment.shape[0]
    relative = gamma(chain_length(d_model, screen) + 3, _FP32)
    norm = frobenius_bound(rounded)
    form = extension().QuadraticForm(rounded.numpy(), cpu_level(), screen)
    spread = 2**0.5 * norm / d_model  # of the scores of rows of norm 1 in all directions
    lost = _lost_norm_bound(moment, scale, width * spread) if screen else 0.0
    return form, 1.0 / scale, relative * norm + lost


def _lost_norm_bound(moment: Tensor, scale: float, enough: float) -> float:
    """Bound on ‖scale · S − Ŝ‖₂ for Ŝ in bfloat16; what was lost is itself kept in bfloat16."""
    lost = torch.empty_like(moment, dtype=torch.bfloat16)
    again = []  # and what that loses
    for rows, scaled in _scaled_rows(moment, scale):
        whole = scaled - scaled.bfloat16()
        lost[rows] = whole
        again.append(frobenius_bound((whole - lost[rows]).float()))
    return spectral_norm_bound(lost, enough=enough) + math.hypot(*again)


def _scaled_rows(moment: Tensor, scale: float) -> Iterator[tuple[slice, Tensor]]:
    """fp64 moment · scale, a few rows at a time: copies of it cost more than the arithmetic."""
    for start in range(0, moment.shape[0], _SCALED_ROWS):
        rows = slice(start, start + _SCALED_ROWS)
        yield rows, moment[rows] * scale


def extension() -> Any:
    """``deltalens._cpu``, which is there when this implementation was chosen."""
    found = cpu_extension()
    assert found is not None
    return found
