"""Latent scores from the few latents that win each token: a list of entries instead of products."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from deltalens.engine.latent.entries import Entries, entry_products
from deltalens.engine.latent.rows import LatentSource, LatentTile
from deltalens.engine.numerics.norms import row_norms
from deltalens.engine.numerics.precision import gamma
from deltalens.engine.token_rows import TokenRows


@dataclass(frozen=True)
class WinnersScorer:
    """x_t·d_i z_{t,i} of the entries, added up, less z̄_i (Σ_t x_t)·d_i.

    Every reduction but the sum needs z̄ = 0, so that nothing else has a term.
    """

    source: LatentSource
    entries: Entries

    def score(self, tile: LatentTile, group: int, *, bounds: bool) -> Tensor:
        """fp64 [2, n]; latents of a tile are consecutive, and of whatever group."""
        first = int(tile.gate.latents[0])
        found, rows = self.entries.span(first, first + len(tile.W_dec)), self.source.rows
        at, tokens = found.latents.long() - first, found.tokens.long()
        products = entry_products(tile.W_dec, at, rows.grads, tokens)
        # The decoder's broken rows are reported by the scan.
        products = -rows.weights[tokens] * products.nan_to_num()
        terms = products * found.z.double()
        counts = torch.bincount(at, minlength=len(tile.W_dec))
        scores = self._reduced(terms, counts)
        error = torch.zeros_like(scores)
        if bounds:
            off = self._off(products, found, tokens, tile.dec_norms[at])
            error = _sums(off, counts) + gamma(len(rows.weights) + 8, torch.float64) * _sums(
                terms.abs(), counts
            )
        if self.source.reduction == "sum":
            summed, norm = self._summed
            taken = tile.gate.mean * (tile.W_dec.double() @ summed).nan_to_num()
            scores = scores - taken
            relative = gamma(sum(rows.shape) + 16, torch.float64)
            error = error + relative * (tile.gate.mean.abs() * tile.dec_norms * norm + scores.abs())
        return torch.stack([scores, error * (1 + 2.0**-40)])

    def _reduced(self, terms: Tensor, counts: Tensor) -> Tensor:
        if self.source.reduction == "abs":
            return _sums(terms.abs(), counts)
        if self.source.reduction == "positive":
            return _sums(terms.clamp(min=0), counts)
        if self.source.reduction == "max":
            largest = torch.segment_reduce(terms, "max", lengths=counts, initial=-torch.inf)
            closed = counts < len(self.source.rows.weights)  # at some token, where the term is 0
            return torch.where(closed, largest.clamp(min=0), largest)
        return _sums(terms, counts)

    def _off(self, products: Tensor, found: Entries, tokens: Tensor, norms: Tensor) -> Tensor:
        """What terms may be off by."""
        error = found.error.double()
        relative = gamma(self.source.rows.shape[1] + 8, torch.float64)
        rounding = relative * self._norms[tokens] * norms.nan_to_num(0.0, 0.0)
        return products.abs() * error + rounding * (found.z.double() + error)

    @cached_property
    def _norms(self) -> Tensor:
        """‖x_t‖, fp64 [tokens]."""
        rows = self.source.rows
        return rows.weights.abs() * row_norms(rows.grads)

    @cached_property
    def _summed(self) -> tuple[Tensor, float]:
        """Σ_t x_t fp64 [d_model], and Σ_t ‖x_t‖."""
        return _total(self.source.rows), float(self._norms.sum())


def _sums(values: Tensor, counts: Tensor) -> Tensor:
    """Of consecutive runs of values, in their order."""
    return torch.segment_reduce(values, "sum", lengths=counts, initial=0.0)


def _total(rows: TokenRows) -> Tensor:
    total = torch.zeros(rows.shape[1], dtype=torch.float64, device=rows.grads.device)
    for _, x, _ in rows.blocks():
        total += x.sum(0)
    return total
