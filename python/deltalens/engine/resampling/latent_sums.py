"""The same for latents by their own activations: −Σ_t w_t (γ_t·r_t)(z_t − z̄) in every segment."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from deltalens.engine.latent.rows import ExactLatents, LatentScorer, LatentTile
from deltalens.engine.latent.scan import LatentProblem, scored, tiles
from deltalens.engine.resampling.tile_sums import HeldSegments, TileSums, rows_for

_PRESENCE_ROWS = 512


@dataclass(frozen=True)
class LatentSums:
    """The sums of every latent, a tile at a time; ``tiles()`` reads both matrices once.

    offsets: [segments + 1] into the problem's tokens; present_only: admit only latents whose
    activation, averaged over the tokens of a segment and then over segments, exceeds z̄; shares:
    what each token has in its segment's average, fp64 [tokens], None for equal ones.
    """

    problem: LatentProblem
    offsets: Sequence[int]
    present_only: bool
    shares: Tensor | None = None

    def tiles(self) -> Iterator[TileSums]:
        """All tiles, in order; of several processes each has a range of them."""
        spans = [slice(*span) for span in pairwise(self.offsets)]
        d_model = self.problem.W_dec.d_model
        held = HeldSegments(
            spans, self._scorer, lambda span: 8 * (span.stop - span.start) * d_model
        )
        rows = rows_for(self.problem.tile_rows, len(spans))
        for start, tile in tiles(replace(self.problem, tile_rows=rows)):
            yield self._tile(start, tile, held, spans)

    def _tile(
        self,
        start: int,
        tile: LatentTile,
        held: HeldSegments[LatentScorer],
        spans: Sequence[slice],
    ) -> TileSums:
        def of_segment(scorer: LatentScorer) -> Tensor:
            return scored(self.problem, scorer, start, tile, bounds=False)[0]

        sums = torch.stack(list(held.each(of_segment)), 1)
        admitted = finite = tile.dec_norms.isfinite() & tile.enc_norms.isfinite()
        sums = sums.masked_fill_(~(finite & sums.isfinite().all(1))[:, None], 0.0)
        if self.present_only:
            admitted = finite & (self._presence(tile, spans) > 0)
        return TileSums(start, sums, admitted)

    def _presence(self, tile: LatentTile, spans: Sequence[slice]) -> Tensor:
        exact = ExactLatents(self.problem.source)
        parts = [
            tile.part(slice(at, at + _PRESENCE_ROWS))
            for at in range(0, len(tile.W_dec), _PRESENCE_ROWS)
        ]
        means = [
            torch.stack([self._mean(exact.latents(part, span), span) for span in spans]).mean(0)
            - part.gate.mean
            for part in parts
        ]
        return torch.cat(means)

    def _mean(self, latents: Tensor, span: slice) -> Tensor:
        if self.shares is None:
            return latents.mean(1)
        return latents @ self.shares[span].to(latents)

    def _scorer(self, span: slice) -> LatentScorer:
        return replace(self.problem, source=self.problem.source.part(span)).scorer()
