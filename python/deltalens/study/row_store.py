"""Captured rows on disk, in shards, so that a study's rows need no memory and survive a cut."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from deltalens.lm import Pair, PairRows
from deltalens.storage.atomic import write_tensors

SHARD_PAIRS = 16
_FIELDS = ("acts", "grad_positive", "grad_negative")


class RowStore:
    """The rows of every pair, :data:`SHARD_PAIRS` pairs to a safetensors file.

    A shard is complete or absent, and always holds the same pairs, so that rows captured before
    and after an interruption went through the model in the same batches.
    """

    def __init__(self, directory: Path, pairs: Sequence[Pair]) -> None:
        self._directory = directory
        self._pairs = pairs

    @property
    def missing(self) -> list[range]:
        """The pairs of each shard that is still to be captured."""
        return [shard for shard in self._shards() if not self._path(shard).exists()]

    def put(self, shard: range, rows: Sequence[PairRows]) -> None:
        """Store the rows of the shard's pairs, given in their order."""
        tensors = {name: torch.cat([getattr(row, name) for row in rows]) for name in _FIELDS}
        losses = [[row.loss_positive, row.loss_negative] for row in rows]
        tensors["losses"] = torch.tensor(losses, dtype=torch.float64)
        tensors["lengths"] = torch.tensor([row.acts.shape[0] for row in rows])
        write_tensors(self._path(shard), tensors)

    def __iter__(self) -> Iterator[PairRows]:
        """All pairs' rows in order, one shard in memory at a time; every shard must be there."""
        for shard in self._shards():
            yield from self._read(shard)

    def _read(self, shard: range) -> Iterator[PairRows]:
        from safetensors.torch import load_file

        tensors = load_file(self._path(shard))
        lengths = tensors["lengths"].tolist()
        parts = [tensors[name].split(lengths) for name in _FIELDS]
        for pair, losses, rows in zip(
            shard, tensors["losses"].tolist(), zip(*parts, strict=True), strict=True
        ):
            yield self._pair_rows(pair, rows, losses)

    def _pair_rows(self, pair: int, rows: tuple[Tensor, ...], losses: list[float]) -> PairRows:
        acts, grad_positive, grad_negative = rows
        return PairRows(
            acts=acts,
            grad_positive=grad_positive,
            grad_negative=grad_negative,
            pair=self._pairs[pair],
            loss_positive=losses[0],
            loss_negative=losses[1],
        )

    def _shards(self) -> list[range]:
        count = len(self._pairs)
        return [
            range(start, min(start + SHARD_PAIRS, count)) for start in range(0, count, SHARD_PAIRS)
        ]

    def _path(self, shard: range) -> Path:
        return self._directory / f"{shard.start:06d}.safetensors"
