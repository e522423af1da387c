"""What a latent score is computed from, and its terms in fp64."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from deltalens.engine.latent.competition import Thresholds
from deltalens.engine.latent.gates import GateRows, LatentGate
from deltalens.engine.latent.terms import (
    Margins,
    Threshold,
    activations,
    reduced_terms,
    slopes,
)
from deltalens.engine.numerics.norms import row_norms
from deltalens.engine.numerics.precision import UNIT_ROUNDOFF, gamma, power_of_two_scale
from deltalens.engine.reductions import combine
from deltalens.engine.token_rows import TokenRows

_BLOCK_ELEMENTS = 1 << 20
_ROWS = 512


class LatentTile(NamedTuple):
    """Some latents of one group: rows of both matrices on one device, and what opens them."""

    W_dec: Tensor  # [n, d_model]
    W_enc: Tensor  # the same, or [n, 0] for a scorer that does not read it
    dec_norms: Tensor  # fp64 [n]
    enc_norms: Tensor
    gate: GateRows

    def part(self, rows: slice) -> LatentTile:
        dec, enc, dec_norms, enc_norms = (each[rows] for each in self[:4])
        return LatentTile(dec, enc, dec_norms, enc_norms, self.gate.part(rows))


class LatentScorer(Protocol):
    """Scores tiles of latents; holds whatever it prepared."""

    def score(self, tile: LatentTile, group: int, *, bounds: bool) -> Tensor:
        """fp64 [2, n]: scores, and where asked for bounds on |score − exact|, otherwise 0."""
        ...


@dataclass(frozen=True)
class LatentSource:
    """Tokens of a latent score: rows x = −w γ and y = x̃, and who wins them."""

    rows: TokenRows
    gate: LatentGate
    thresholds: Thresholds | None
    reduction: str

    def near_one(self) -> LatentSource:
        """With x scaled so that its largest magnitude is near 1."""
        largest, _ = self.rows.largest()
        return replace(self, rows=replace(self.rows, x_scale=power_of_two_scale(largest)))

    def by_clarity(self) -> tuple[LatentSource | None, LatentSource | None]:
        """The tokens whose winners fp32 can tell, and the others; None for none.

        In the former x of the others is 0, except for a maximum, which would see that.
        """
        if self.thresholds is None or bool(self.thresholds.clear.all()):
            return self, None
        clear = self.thresholds.clear
        if not bool(clear.any()):
            return None, self
        if self.reduction == "max":
            return self.part(clear), self.part(~clear)
        rows = replace(self.rows, weights=self.rows.weights * clear)
        return replace(self, rows=rows), self.part(~clear)

    def part(self, which: Tensor | slice) -> LatentSource:
        """Some of the tokens: bool [tokens] or a slice."""
        rows, found = self.rows, self.thresholds
        rows = replace(
            rows, acts=rows.acts[which], grads=rows.grads[which], weights=rows.weights[which]
        )
        if found is None:
            return replace(self, rows=rows)
        value, last, clear = (each[..., which] for each in (found.value, found.last, found.clear))
        of_tokens = Thresholds(value, last, clear, found.enc_norms, winners=None)
        return replace(self, rows=rows, thresholds=of_tokens)


def with_whole_error(scored: Tensor) -> Tensor:
    """fp64 [2, n] of scores and both of their bounds [3, n]."""
    return torch.stack([scored[0], scored[1] + scored[2]])


@dataclass(frozen=True)
class ExactLatents:
    """The definition in fp64 over blocks of tokens, with bounds; latents may be of any groups."""

    source: LatentSource

    def score(self, tile: LatentTile, group: int, *, bounds: bool) -> Tensor:
        """fp64 [2, n]; ``group`` is not needed."""
        return with_whole_error(self.score_and_errors(tile))

    def score_and_errors(self, tile: LatentTile) -> Tensor:
        """fp64 [3, n]: scores, bounds on rounding, and on what it may have opened or closed."""
        parts = [
            self._score(tile.part(slice(start, start + _ROWS)))
            for start in range(0, len(tile.W_dec), _ROWS)
        ]
        return torch.cat(parts, 1)

    def _score(self, tile: LatentTile) -> Tensor:
        source = self.source
        tokens, d_model = source.rows.shape
        relative = gamma(d_model + 8, torch.float64)
        x_slopes, u_slopes = slopes(tile.dec_norms, relative), slopes(tile.enc_norms, relative)
        dec, enc = tile.W_dec.double(), tile.W_enc.double()
        rounding = (tokens + 32) * UNIT_ROUNDOFF[torch.float64]

        def block(part: slice, x: Tensor, y: Tensor) -> Tensor:
            margins = Margins(x_slopes, row_norms(x), u_slopes, row_norms(y), rounding)
            threshold = self._threshold(tile.gate.latents, part)
            return reduced_terms(
                dec @ x.T, enc @ y.T, tile.gate, threshold, margins, source.reduction
            )

        blocks = source.rows.blocks(elements=_BLOCK_ELEMENTS)
        return combine((block(*each) for each in blocks), source.reduction)

    def latents(self, tile: LatentTile, tokens: slice) -> Tensor:
        """z fp64 [n, tokens] of some tokens."""
        y = self.source.rows.acts[tokens].double()
        relative = gamma(y.shape[1] + 8, torch.float64)
        error = slopes(tile.enc_norms, relative)[:, None] * row_norms(y)
        threshold = self._threshold(tile.gate.latents, tokens)
        return activations(tile.W_enc.double() @ y.T, tile.gate, threshold, error)

    def _threshold(self, latents: Tensor, tokens: slice) -> Threshold | None:
        found = self.source.thresholds
        if found is None:
            return None
        groups = latents // self.source.gate.group_size
        return Threshold(found.value[groups, tokens], found.last[groups, tokens])


@dataclass(frozen=True)
class WithExactTokens:
    """A scorer of the tokens fp32 can decide, and the fp64 terms of the others."""

    scorer: LatentScorer
    exact: ExactLatents

    def score(self, tile: LatentTile, group: int, *, bounds: bool) -> Tensor:
        """fp64 [2, n]."""
        both = torch.stack(
            [each.score(tile, group, bounds=bounds) for each in (self.scorer, self.exact)]
        )
        scores, error = both[:, 0], both[:, 1].sum(0)
        if self.exact.source.reduction == "max":
            return torch.stack([scores.amax(0), error])
        return torch.stack([scores.sum(0), error])
