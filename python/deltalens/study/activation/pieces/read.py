"""The rows of a piece, as a model reads them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor

from deltalens.lm import Site
from deltalens.lm.activations import activations_at
from deltalens.study.activation.pieces.cut import Piece


def read_piece(
    model: Any, sites: Sequence[Site], batch_tokens: int, piece: Piece
) -> Iterator[tuple[int, list[Tensor]]]:
    """(number in the piece, activations at each site) of every row, as
    :func:`~deltalens.lm.activations.activations_at` gives them."""
    return activations_at(
        model,
        piece.sequences,
        sites,
        batch_tokens=batch_tokens,
        label=lambda number: f"sequence {piece.start + number}",
    )
