"""What the scan asks of an implementation."""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

from torch import Tensor

from deltalens.engine.reductions import SegmentStatistics


class TileScores(NamedTuple):
    """Scores of a tile and a bound on |score − exact|, both fp64 [queries, rows of the tile]."""

    scores: Tensor
    error: Tensor


class Scorer(Protocol):
    """Scores a tile of decoder rows for one or several queries; holds whatever it prepared."""

    def scores(self, rows: Tensor) -> Tensor:
        """fp64 [queries, n] for rows [n, d_model]."""
        ...

    def scores_and_error(self, rows: Tensor, norms: Tensor) -> TileScores:
        """The same with bounds; norms are the fp64 Euclidean norms [n] of the rows."""
        ...


@runtime_checkable
class SegmentScorer(Protocol):
    """A scorer that was prepared with segments of tokens."""

    def statistics(self, rows: Tensor) -> SegmentStatistics:
        """Over segments, of the sums within each; fp64 [n] for rows [n, d_model]."""
        ...
