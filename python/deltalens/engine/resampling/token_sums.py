"""A tile's scores in every segment: −Σ_t w_t (γ_t·d)((a_t − ā)·d) over each segment's tokens.

A segment is scored by whichever form is cheaper for it, with the implementation that scans with the
whole study.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from deltalens.engine.checks import check_segments, check_width
from deltalens.engine.cost.planner import tile_rows
from deltalens.engine.decoder import Decoder, TensorDecoder
from deltalens.engine.moment import CrossMoment
from deltalens.engine.numerics.norms import row_norms
from deltalens.engine.problem import moment_problem, token_problem
from deltalens.engine.resampling.tile_sums import (
    HeldSegments,
    TileSums,
    bytes_held,
    quadratic_pays,
    rows_for,
)
from deltalens.engine.tile import Scorer
from deltalens.engine.token_rows import TokenRows
from deltalens.engine.trust.implementations import choose_impl
from deltalens.engine.upload import device_tiles
from deltalens.ranks.ranks import ALONE, Ranks

# Relative to ‖d‖² Σ_t |w_t| ‖γ_t‖ ‖a_t − ā‖: what fp32 products of orthogonal rows may leave.
_ROUNDING = 2.0**-22


@dataclass(frozen=True)
class TokenSums:
    """The sums of every latent, a tile at a time; ``tiles()`` reads the decoder once.

    source: the tokens of all segments, one after the other; offsets [segments + 1] into them;
    presence: fp64 [d_model] to admit only latents whose direction has a positive product with it.
    """

    source: TokenRows
    offsets: Sequence[int]
    decoder: Decoder
    impl: str
    normalize: bool
    presence: Tensor | None = None
    ranks: Ranks = ALONE

    def tiles(self, reader: Decoder | None = None) -> Iterator[TileSums]:
        """All tiles, in order; of several processes each has a range of them.

        reader: the decoder as it is to be read, where others read it too.
        """
        check_width(self.decoder, self.source.shape[1])
        check_segments(torch.tensor(self.offsets), self.source.shape[0])
        device = self.source.acts.device
        spans = [slice(*span) for span in pairwise(self.offsets)]
        held = HeldSegments(spans, self._scorer, self._bytes_held)
        magnitude = self._magnitude(spans)
        tile_rows = self._tile_rows(len(spans))
        for start, rows in device_tiles(reader or self.decoder, tile_rows, device, self.ranks):
            yield self._tile(start, rows.to(device), held, magnitude)

    def _tile(
        self, start: int, rows: Tensor, held: HeldSegments[Scorer], magnitude: float
    ) -> TileSums:
        squares = row_norms(rows).square()
        sums = torch.stack(list(held.each(lambda scorer: scorer.scores(rows)[0])), 1)
        size = torch.linalg.vector_norm(sums, dim=1)
        usable = squares.isfinite() & (size > _ROUNDING * magnitude * squares)
        if self.normalize:
            sums = sums / squares[:, None]
        sums = sums.masked_fill_(~(usable & size.isfinite())[:, None], 0.0)
        return TileSums(start, sums, self._admitted(rows, squares.isfinite()))

    def _admitted(self, rows: Tensor, finite: Tensor) -> Tensor:
        if self.presence is None:
            return finite
        return finite & (rows.float() @ self.presence.to(rows.device).float() > 0)

    def _scorer(self, span: slice) -> Scorer:
        given, tokens = self.source, span.stop - span.start
        acts, grads, weights = (each[span] for each in (given.acts, given.grads, given.weights))
        if quadratic_pays(tokens, given.shape[1]):
            moment = CrossMoment(given.shape[1], acts.device)
            moment.add(acts, grads, baseline=given.baseline, weights=weights)
            return moment_problem([moment], self.decoder, self.impl).scorer()
        problem = token_problem(acts, grads, self.decoder, given.baseline, weights, self.impl)
        return problem.scorer()

    def _bytes_held(self, span: slice) -> int:
        return bytes_held(span.stop - span.start, self.source.shape[1])

    def _magnitude(self, spans: Sequence[slice]) -> float:
        """√Σ (Σ_t ‖x_t‖ ‖y_t‖)² over segments."""
        blocks = self.source.blocks()
        each = torch.cat([x.norm(dim=1) * y.norm(dim=1) for _, x, y in blocks])
        return float(torch.stack([each[span].sum() for span in spans]).norm())

    def _tile_rows(self, segments: int) -> int:
        device = self.source.acts.device
        resident = (
            isinstance(self.decoder, TensorDecoder)
            and self.decoder.rows(0, 0).device.type == device.type
        )
        impl = choose_impl(self.impl, device)
        rows = tile_rows(self.decoder.d_model, impl, resident=resident, tokens=self.source.shape[0])
        return rows_for(rows, segments)
