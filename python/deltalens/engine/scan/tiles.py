"""Tiles of a decoder on their way through a scan."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from deltalens.engine.numerics.precision import gamma
from deltalens.engine.problem import Problem
from deltalens.engine.tile import Scorer, TileScores
from deltalens.engine.upload import device_tiles

RESCORE_ROWS = 512
_WIDEST = 2.0**40  # norm, or one over it, to whose squares sums of fp32 products have room


@dataclass(frozen=True)
class Tile:
    start: int
    rows: Tensor  # [n, d_model] on the problem's device
    norms: Tensor  # fp64 [n]
    finite: Tensor  # bool [n]


def tiles(problem: Problem) -> Iterator[Tile]:
    for start, rows in device_tiles(
        problem.decoder, problem.tile_rows, problem.device, problem.ranks
    ):
        yield tile_of(problem, start, rows)


def tile_of(problem: Problem, start: int, rows: Tensor) -> Tile:
    rows = rows.to(problem.device)
    norms = problem.norms(rows)
    return Tile(start, rows, norms, norms.isfinite())


def beyond_fp32(tile: Tile) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows so long or so short that sums of fp32 products overflow or vanish, and their places, a
    chunk at a time."""
    outside = too_long(tile) | ((tile.norms < 1 / _WIDEST) & (tile.norms > 0))
    for places in (outside & tile.finite).nonzero()[:, 0].split(RESCORE_ROWS):
        if places.shape[0]:
            yield tile.rows[places], places


def too_long(tile: Tile) -> Tensor:
    """Rows, bool [n], whose sums of fp32 products may overflow."""
    return tile.norms > _WIDEST


def score_tile(scorer: Scorer, rows: Tensor, norms: Tensor, normalize: bool) -> TileScores:
    scores, error = scorer.scores_and_error(rows, norms)
    if normalize:
        inverse = inverse_square(norms)
        scores, error = scores * inverse, error * inverse
        error = error + gamma(rows.shape[1] + 8, torch.float64) * scores.abs()
    return TileScores(scores, error)


def inverse_square(norms: Tensor) -> Tensor:
    """1 / ‖d‖², and 0 for a zero row: a dead latent scores 0."""
    return torch.where(norms > 0, norms.square().reciprocal(), torch.zeros_like(norms))


def plain_norms(rows: Tensor) -> Tensor:
    """Euclidean norms, fp64 [n], by torch alone."""
    return torch.linalg.vector_norm(rows, dim=1, dtype=torch.float64)


def warn_nonfinite(latents: Tensor, depth: int = 4) -> None:
    if latents.shape[0]:
        first = ", ".join(str(i) for i in latents[:5].tolist())
        warnings.warn(
            f"W_dec has {latents.shape[0]} rows with NaN or infinity, left out of the ranking "
            f"(first: {first})",
            stacklevel=depth,
        )
