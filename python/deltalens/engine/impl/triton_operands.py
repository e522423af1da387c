"""What the Triton kernels multiply: rows in the kernels' precision, and how much that loses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from deltalens.engine.numerics.precision import (
    SMALLEST_NORMAL,
    UNIT_ROUNDOFF,
    gamma,
    power_of_two_scale,
)
from deltalens.engine.numerics.spectral import MOST_SQUARINGS
from deltalens.engine.token_rows import Group, TokenRows
from deltalens.kernels.parts import split_parts

_FP32 = torch.float32
_BLOCK_T = 1024  # tokens prepared at a time, at most
_BLOCK_ELEMENTS = 1 << 20
_ROUNDED_ELEMENTS = 1 << 24  # of float32 rows rounded at a time
OVER_ROUNDED = 2.0**11  # a norm over twice what rounding to float16 takes from it
_HALF_SCALE = 2.0**10  # lifts small numbers out of float16's subnormal range


def operand_dtype(dtype: torch.dtype, *, screen: bool) -> torch.dtype:
    """What decoder rows of ``dtype`` are multiplied in."""
    return torch.float16 if dtype == _FP32 and screen else dtype


def part_count(dtype: torch.dtype, screen: bool) -> int:
    """How many parts of ``dtype`` make up the other operand."""
    return 1 if screen or dtype == _FP32 else 3


def scale_for(largest: float, dtype: torch.dtype) -> float:
    """A power of two that brings numbers up to ``largest`` into the middle of the range."""
    scale = power_of_two_scale(largest)
    return scale * _HALF_SCALE if dtype == torch.float16 else scale


def spectral_norm(matrix: Tensor, *, enough: float = 0.0, squarings: int = MOST_SQUARINGS) -> float:
    """A number that ‖matrix‖₂ does not exceed, for finite [d, d]; a squaring costs 2·d³ FLOP, fp32,
    and there is none once the number is at most ``enough``.

    ‖M‖₂² = ‖MᵀM‖₂, and ‖·‖₂ ≤ ‖·‖_F. With ‖M‖_F = 1 the rounding of MᵀM has Frobenius norm at most
    γ_d. Not by 16-bit products as on CPUs: GPUs may add those up in less than fp32.
    """
    scale = power_of_two_scale(float(matrix.abs().max()))
    scaled = matrix.double() * scale
    norm = float(torch.linalg.matrix_norm(scaled)) * (1 + 2.0**-40)
    if squarings == 0 or norm <= enough * scale:
        return norm / scale
    unit = (scaled / norm).float()
    width = matrix.shape[0]
    rounding = gamma(width + 2, _FP32) + width**2 * SMALLEST_NORMAL[_FP32]
    left = max(0.0, (enough * scale / norm) ** 2 - rounding)
    square = spectral_norm(unit.T @ unit, enough=left, squarings=squarings - 1) + rounding
    return norm * (square**0.5 + 2 * UNIT_ROUNDOFF[_FP32]) * (1 + 2.0**-40) / scale


def with_contiguous_rows(rows: Tensor) -> Tensor:
    """The rows themselves, or a copy when their elements are not adjacent."""
    return rows if rows.stride(1) == 1 or rows.shape[1] == 1 else rows.contiguous()


def row_norms(rows: Tensor) -> Tensor:
    return torch.linalg.vector_norm(rows, dim=-1, dtype=torch.float64)


class Operand(NamedTuple):
    """Decoder rows as a kernel reads them: ``scale · d = rows + lost``, scale a power of two."""

    rows: Tensor  # [n, d_model]
    norms: Tensor  # fp64 [n], of rows
    lost: Tensor  # fp64 [n], norm of what is lost
    unscale: Tensor  # fp64 [n], 1 / scale²


def operands(rows: Tensor, norms: Tensor, dtype: torch.dtype) -> Iterator[Operand]:
    """The rows of a tile in ``dtype``, so many at a time that a copy of them is small."""
    if rows.dtype == dtype:
        yield Operand(
            with_contiguous_rows(rows), norms, torch.zeros_like(norms), torch.ones_like(norms)
        )
        return
    for chunk in rows.split(max(1, _ROUNDED_ELEMENTS // rows.shape[1])):
        exponents = torch.frexp(chunk.abs().amax(1)).exponent.clamp(-120, 120)
        scale = torch.ldexp(torch.ones_like(exponents, dtype=_FP32), -exponents)
        scaled = chunk * scale[:, None]
        rounded = scaled.to(dtype)
        lost = row_norms(scaled.sub_(rounded)) * (1 + 2.0**-20)
        lost += rows.shape[1] * SMALLEST_NORMAL[_FP32]
        yield Operand(rounded, row_norms(rounded), lost, scale.double().square().reciprocal())


@dataclass(frozen=True)
class RoundedRows:
    """x = −w γ and y = a − ā, scaled, as parts; with norms and bounds on what the rounding loses.

    Losses are of a row of norm 1: of any reduction over tokens by the sum of those of its terms,
    and in a screen, of the sum, by spectral norms of the moment Σ_t x_t y_tᵀ after symmetrising
    that they change.
    """

    rows: TokenRows
    dtype: torch.dtype
    parts: int
    x_norm: float  # Frobenius norms
    y_norm: float
    lost: float
    spectral: float

    @classmethod
    def measure(
        cls,
        source: TokenRows,
        *,
        dtype: torch.dtype,
        parts: int,
        rows_rounded: bool,
        width: float = 0.0,
    ) -> RoundedRows:
        """``rows_rounded``: whether the moment's own norm is needed because decoder rows will be
        rounded too. width: of a screen's errors over the spread of scores, narrow enough."""
        rows = _scaled(source, dtype)
        whole, lost = _MomentNorm(rows.acts), _MomentNorm(rows.acts)
        by_norms = x_square = y_square = products = 0.0
        for _, x, y in rows.blocks(elements=_BLOCK_ELEMENTS):
            x_held = split_parts(x, dtype, parts).double().sum(0)
            y_held = split_parts(y, dtype, parts).double().sum(0)
            x_square += float(x.square().sum())
            y_square += float(y.square().sum())
            products += float((row_norms(x) * row_norms(y)).square().sum())
            by_norms += float(row_norms(x - x_held) @ row_norms(y))
            by_norms += float(row_norms(x_held) @ row_norms(y - y_held))
            if parts == 1 and dtype != _FP32:
                lost.add(x - x_held, y)
                lost.add(x_held, y - y_held)
            if rows_rounded:
                whole.add(x, y)
        enough = width * products**0.5 / source.shape[1]
        return cls(
            rows,
            dtype,
            parts,
            x_square**0.5,
            y_square**0.5,
            min(by_norms, lost.bound(enough)) if lost.used else by_norms,
            whole.bound(enough * OVER_ROUNDED) if rows_rounded else 0.0,
        )

    @property
    def scale(self) -> float:
        """What makes a product of x and y one of the rows as given."""
        return self.rows.unscale

    def parts_of(self, group: Group) -> tuple[Tensor, Tensor]:
        """x and y [parts, tokens, d_model] of a group's tokens."""
        first, stop = group.tokens.start, group.tokens.stop
        shape = (self.parts, stop - first, self.rows.shape[1])
        device = self.rows.acts.device
        x_parts, y_parts = (torch.empty(shape, dtype=self.dtype, device=device) for _ in range(2))
        for part, x, y in self.rows.blocks(group.tokens, elements=_BLOCK_ELEMENTS):
            inside = slice(part.start - first, part.stop - first)
            x_parts[:, inside] = split_parts(x, self.dtype, self.parts)
            y_parts[:, inside] = split_parts(y, self.dtype, self.parts)
        return x_parts, y_parts


def _scaled(rows: TokenRows, dtype: torch.dtype) -> TokenRows:
    """The rows in the middle of the range of ``dtype``."""
    x, y = rows.largest()
    return replace(rows, x_scale=scale_for(x, dtype), y_scale=scale_for(y, dtype))


class _MomentNorm:
    """A bound on the spectral norm of sym(Σ_t x_t y_tᵀ), accumulated in fp32 products."""

    def __init__(self, like: Tensor) -> None:
        width = like.shape[1]
        self._sum = torch.zeros(width, width, dtype=torch.float64, device=like.device)
        self._magnitude = 0.0
        self._tokens = 0

    @property
    def used(self) -> bool:
        return self._tokens > 0

    def add(self, x: Tensor, y: Tensor) -> None:
        self._sum += x.float().T @ y.float()
        self._magnitude += float(x.norm() * y.norm())
        self._tokens += x.shape[0]

    def bound(self, enough: float) -> float:
        rounding = gamma(_BLOCK_T + 8, _FP32) * self._magnitude
        flushed = 8 * self._sum.shape[0] * self._tokens * SMALLEST_NORMAL[_FP32]
        symmetric = (self._sum + self._sum.T) / 2
        return spectral_norm(symmetric, enough=enough) + rounding + flushed
