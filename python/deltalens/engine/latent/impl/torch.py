"""Latent scores in tiled fp32 PyTorch, with the bounds of :mod:`deltalens.engine.latent.terms`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from deltalens.engine.impl.torch import BLOCK_N, BLOCK_T
from deltalens.engine.latent.rows import LatentSource, LatentTile, with_whole_error
from deltalens.engine.latent.terms import FLUSHED_NORM, Margins, Threshold, reduced_terms, slopes
from deltalens.engine.numerics.norms import row_norms
from deltalens.engine.numerics.precision import UNIT_ROUNDOFF, gamma
from deltalens.engine.numerics.products import blocked_product, chain_length
from deltalens.engine.reductions import combine
from deltalens.engine.token_rows import Group, HeldGroups, token_groups, tokens_held


class _Rows(NamedTuple):
    x: Tensor  # [tokens, d_model] fp32
    y: Tensor
    x_norms: Tensor  # fp32 [tokens]
    y_norms: Tensor


@dataclass(frozen=True)
class LatentScorer:
    """Σ_t x_t·d (z_t − z̄) or another reduction; memory O(BLOCK_N · BLOCK_T) and a group of rows."""

    source: LatentSource
    groups: HeldGroups[_Rows]

    @classmethod
    def prepare(cls, source: LatentSource) -> LatentScorer:
        """Fold weights into the rows (fp64, then one rounding to fp32)."""
        source = source.near_one()
        tokens, d_model = source.rows.shape
        groups = token_groups(tokens, tokens_held(8 * d_model))

        def hold(group: Group) -> _Rows:
            x, y = source.rows.in_fp32(group.tokens)
            norms = (row_norms(each).float() + FLUSHED_NORM for each in (x, y))
            return _Rows(x, y, *norms)

        return cls(source, HeldGroups(groups, hold))

    def score(self, tile: LatentTile, group: int, *, bounds: bool) -> Tensor:
        """fp64 [2, n]."""
        starts = range(0, len(tile.W_dec), BLOCK_N)
        parts = [tile.part(slice(start, start + BLOCK_N)) for start in starts]

        def of_group(tokens: Group, held: _Rows) -> Tensor:
            scored = [
                combine(self._blocks(part, tokens, held, group, bounds), self.source.reduction)
                for part in parts
            ]
            return torch.cat(scored, 1)

        scored = combine(self.groups.each(of_group), self.source.reduction)
        return with_whole_error(scored) * self.source.rows.unscale

    def _blocks(
        self, tile: LatentTile, tokens: Group, held: _Rows, group: int, bounds: bool
    ) -> Iterator[Tensor]:
        dec, enc = tile.W_dec.float(), tile.W_enc.float()
        count, d_model = self.source.rows.shape
        relative = gamma(chain_length(d_model) + 1, torch.float32)
        of_rows = [slopes(norms, relative).float() for norms in (tile.dec_norms, tile.enc_norms)]
        rounding = 8 * UNIT_ROUNDOFF[torch.float32] + gamma(count + 32, torch.float64)
        for start in range(0, len(held.x), BLOCK_T):
            x, y, x_norms, y_norms = (each[start : start + BLOCK_T] for each in held)
            margins = None
            if bounds:
                margins = Margins(of_rows[0], x_norms, of_rows[1], y_norms, rounding)
            first = tokens.tokens.start + start
            yield reduced_terms(
                blocked_product(dec, x.T),
                blocked_product(enc, y.T),
                tile.gate,
                self._threshold(group, slice(first, first + len(x))),
                margins,
                self.source.reduction,
            )

    def _threshold(self, group: int, tokens: slice) -> Threshold | None:
        found = self.source.thresholds
        return None if found is None else Threshold(found.value[group, None, tokens].float())
