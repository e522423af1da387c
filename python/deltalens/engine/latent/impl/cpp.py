"""Latent scores on the compiled CPU kernels, with bounds; see latent_terms.py for those."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from deltalens.engine.impl.cpp import SLACK, chain_length, extension
from deltalens.engine.latent.rows import LatentSource, LatentTile
from deltalens.engine.latent.terms import FLUSHED_NORM, slopes
from deltalens.engine.numerics.extension import as_array, cpu_level
from deltalens.engine.numerics.precision import SMALLEST_NORMAL, gamma
from deltalens.engine.reductions import combine
from deltalens.engine.token_rows import Group, HeldGroups, token_groups, tokens_held


@dataclass(frozen=True)
class LatentScorer:
    """Σ_t x_t·d (z_t − z̄) or another reduction; memory one group of rows in fp32."""

    source: LatentSource
    groups: HeldGroups[Any]  # deltalens._cpu.LatentForm

    @classmethod
    def prepare(cls, source: LatentSource) -> LatentScorer:
        """Fold weights into the rows (fp64, then one rounding to fp32)."""
        source = source.near_one()
        tokens, d_model = source.rows.shape
        groups = token_groups(tokens, tokens_held(8 * d_model))
        return cls(source, HeldGroups(groups, lambda group: _packed(source, group)))

    def score(self, tile: LatentTile, group: int, *, bounds: bool) -> Tensor:
        """fp64 [2, n]."""
        tokens, d_model = self.source.rows.shape
        relative = gamma(chain_length(d_model, screen=False) + 2, torch.float32)
        rounding = torch.full_like(tile.dec_norms, gamma(tokens + 64, torch.float64))
        gates = torch.stack(
            [
                *tile.gate[1:],
                slopes(tile.dec_norms, relative),
                slopes(tile.enc_norms, relative),
                rounding,
            ],
            1,
        ).numpy()
        arrays, threads = (as_array(tile.W_dec), as_array(tile.W_enc)), torch.get_num_threads()

        def of_group(held: Group, form: Any) -> Tensor:
            thresholds = self._thresholds(group, held.tokens)
            found = form.scan(*arrays, gates, thresholds, threads, bounds)
            totals = torch.from_numpy(found[0])
            errors = torch.from_numpy(found[1]) if bounds else torch.zeros_like(totals)
            return torch.stack([totals, errors])

        scored = combine(self.groups.each(of_group), self.source.reduction)
        scored[1] = scored[1] * SLACK + tokens * SMALLEST_NORMAL[torch.float32]
        return scored * self.source.rows.unscale

    def _thresholds(self, group: int, tokens: slice) -> Any:
        found = self.source.thresholds
        empty = torch.empty(0, dtype=torch.float64)
        return (empty if found is None else found.value[group, tokens].contiguous()).numpy()


def _packed(source: LatentSource, group: Group) -> Any:
    """A deltalens._cpu.LatentForm of the group's tokens."""
    first, stop = group.tokens.start, group.tokens.stop
    d_model = source.rows.shape[1]
    form = extension().LatentForm(stop - first, d_model, cpu_level(), source.reduction)
    for part, x, y in source.rows.blocks(group.tokens):
        norms = (torch.linalg.vector_norm(each, dim=1) + FLUSHED_NORM for each in (x, y))
        rows = (each.float().numpy() for each in (x, y))
        form.set(part.start - first, *rows, *(each.numpy() for each in norms))
    return form
