"""Latent scores on the Triton kernels, with bounds; see latent_terms.py for those."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from deltalens.engine.impl.triton import dot_error
from deltalens.engine.impl.triton_operands import (
    part_count,
    row_norms,
    scale_for,
    with_contiguous_rows,
)
from deltalens.engine.latent.rows import LatentSource, LatentTile
from deltalens.engine.latent.terms import FLUSHED_NORM, slopes
from deltalens.engine.numerics.precision import SMALLEST_NORMAL, gamma
from deltalens.engine.reductions import combine
from deltalens.engine.token_rows import Group, HeldGroups, token_groups, tokens_held
from deltalens.kernels.latent_attribution import latent_attribution
from deltalens.kernels.parts import split_parts

_FP32 = torch.float32
_BLOCK_ELEMENTS = 1 << 20


class _Rows(NamedTuple):
    x: Tensor  # [parts, tokens, d_model]
    y: Tensor
    norms: Tensor  # fp32 [2, tokens]: what slopes are multiplied with, losses to parts included


@dataclass(frozen=True)
class LatentScorer:
    """Σ_t x_t·d (z_t − z̄) or another reduction; memory the parts of one group of rows.

    Both matrices are multiplied in their own dtype where they share it, otherwise in fp32.
    """

    source: LatentSource
    dtype: torch.dtype
    groups: HeldGroups[_Rows]
    relative: float

    @classmethod
    def prepare(cls, source: LatentSource, dtype: torch.dtype) -> LatentScorer:
        """Fold weights into the rows and scale them, for matrices multiplied in ``dtype``."""
        x, y = source.rows.largest()
        scaled = replace(source.rows, x_scale=scale_for(x, dtype), y_scale=scale_for(y, dtype))
        source = replace(source, rows=scaled)
        parts = part_count(dtype, screen=False)
        tokens, d_model = scaled.shape
        relative = dot_error(d_model, dtype, parts)
        held = tokens_held(2 * parts * dtype.itemsize * d_model)
        groups = HeldGroups(
            token_groups(tokens, held), lambda group: _hold(source, group, dtype, parts, relative)
        )
        return cls(source, dtype, groups, relative)

    def score(self, tile: LatentTile, group: int, *, bounds: bool) -> Tensor:
        """fp64 [2, n]."""
        matrices = [with_contiguous_rows(each.to(self.dtype)) for each in tile[:2]]
        y_scale = self.source.rows.y_scale
        _, scale, bias, cut, mean = tile.gate
        error_slopes = (slopes(norms, self.relative) for norms in (tile.dec_norms, tile.enc_norms))
        vectors = (scale / y_scale, bias, cut * y_scale, mean, *error_slopes)
        latents = torch.stack(vectors).to(_FP32)
        tokens = self.source.rows.shape[0]
        # Terms are added up within a block of at least 32 tokens, and blocks after each other.
        summing = gamma(160 + tokens // 32, _FP32)

        def of_group(held: Group, rows: _Rows) -> Tensor:
            found = latent_attribution(
                *matrices,
                rows.x,
                rows.y,
                latents=latents,
                tokens=torch.cat([self._thresholds(group, held.tokens), rows.norms]),
                reduction=self.source.reduction,
                rounding=summing if bounds else None,
            )
            errors = torch.zeros_like(found.scores) if found.errors is None else found.errors
            return torch.stack([found.scores, errors]).double()

        scored = combine(self.groups.each(of_group), self.source.reduction)
        scored[1] = scored[1] * (1 + 4 * summing) + 2 * tokens * SMALLEST_NORMAL[_FP32]
        return scored / self.source.rows.x_scale

    def _thresholds(self, group: int, tokens: slice) -> Tensor:
        found, device = self.source.thresholds, self.source.rows.acts.device
        if found is None:
            return torch.full((1, tokens.stop - tokens.start), -torch.inf, device=device)
        return found.value[group, None, tokens].to(_FP32)


def _hold(
    source: LatentSource, group: Group, dtype: torch.dtype, parts: int, relative: float
) -> _Rows:
    first, count = group.tokens.start, group.tokens.stop - group.tokens.start
    rows, device = source.rows, source.rows.acts.device
    held = torch.empty(2, parts, count, rows.shape[1], dtype=dtype, device=device)
    norms = torch.empty(2, count, device=device)
    for part, *both in rows.blocks(group.tokens, elements=_BLOCK_ELEMENTS):
        inside = slice(part.start - first, part.stop - first)
        for which, values in enumerate(both):
            pieces = split_parts(values, dtype, parts)
            held[which, :, inside] = pieces
            lost = row_norms(values - pieces.double().sum(0))
            size = row_norms(values) + lost / relative + FLUSHED_NORM
            norms[which, inside] = (size * (1 + 2.0**-20)).float()
    return _Rows(held[0], held[1], norms)
