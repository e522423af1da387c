"""Captured rows on disk, in shards, so that a study's rows need no memory and survive a cut."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path

import torch
from torch import Tensor

from deltalens.lm import EncodedPair, PairRows
from deltalens.storage.filled import FilledTensors, filled_bytes, filled_tensors
from deltalens.storage.tensor_header import Blank

SHARD_PAIRS = 16
_FIELDS = ("acts", "grad_positive", "grad_negative")
_COUNTERPART = "counterpart"


def shards(pairs: int) -> list[range]:
    """All pairs, :data:`SHARD_PAIRS` at a time."""
    return [range(start, min(start + SHARD_PAIRS, pairs)) for start in range(0, pairs, SHARD_PAIRS)]


def shard_bytes(pairs: Sequence[EncodedPair], d_model: int) -> int:
    """How large the file of a shard's pairs is."""
    return filled_bytes(_blanks(pairs, d_model))


def _blanks(encoded: Sequence[EncodedPair], d_model: int) -> dict[str, Blank]:
    tokens, pairs = sum(pair.counted_rows for pair in encoded), len(encoded)
    return {
        "losses": Blank((pairs, 2), torch.float64),
        "lengths": Blank((pairs,), torch.int64),
        **{name: Blank((tokens, d_model), torch.float32) for name in _fields(encoded)},
    }


def _fields(encoded: Sequence[EncodedPair]) -> tuple[str, ...]:
    """Pairs of a study are all aligned or none is."""
    return _FIELDS if encoded[0].counterpart is None else (*_FIELDS, _COUNTERPART)


class ShardFiller:
    """Takes the rows of a shard's pairs."""

    def __init__(self, file: FilledTensors, fields: Sequence[str], offsets: Sequence[int]) -> None:
        self._file, self._fields, self._offsets = file, fields, offsets

    def put(self, index: int, rows: PairRows) -> None:
        """The rows of the pair at place ``index`` of the shard."""
        for name in self._fields:
            self._file.put(name, self._offsets[index], getattr(rows, name))
        losses = torch.tensor([[rows.loss_positive, rows.loss_negative]], dtype=torch.float64)
        self._file.put("losses", index, losses)


class RowStore:
    """The rows of every pair, :data:`SHARD_PAIRS` pairs to a safetensors file.

    A shard is complete or absent, and always holds the same pairs, so that rows captured before
    and after an interruption went through the model in the same batches.
    """

    def __init__(self, directory: Path, pairs: Sequence[EncodedPair], d_model: int) -> None:
        self._directory = directory
        self._pairs = pairs
        self._d_model = d_model

    @property
    def missing(self) -> list[range]:
        """The pairs of each shard that is still to be captured."""
        return [shard for shard in self._shards() if not self.holds(shard)]

    def holds(self, shard: range) -> bool:
        """Whether the shard's pairs have been captured."""
        return self._path(shard).exists()

    @contextmanager
    def filling(self, shard: range) -> Iterator[ShardFiller]:
        """Store the rows of the shard's pairs, in whatever order."""
        pairs = [self._pairs[pair] for pair in shard]
        lengths = [pair.counted_rows for pair in pairs]
        with filled_tensors(self._path(shard), _blanks(pairs, self._d_model)) as file:
            file.put("lengths", 0, torch.tensor(lengths))
            yield ShardFiller(file, _fields(pairs), [0, *accumulate(lengths)])

    def __iter__(self) -> Iterator[PairRows]:
        """All pairs' rows in order, one shard in memory at a time; every shard must be there."""
        for shard in self._shards():
            yield from self._read(shard)

    def _read(self, shard: range) -> Iterator[PairRows]:
        from safetensors.torch import load_file

        tensors = load_file(self._path(shard))
        lengths = tensors["lengths"].tolist()
        parts = [tensors[name].split(lengths) for name in _fields(self._pairs)]
        for pair, losses, rows in zip(
            shard, tensors["losses"].tolist(), zip(*parts, strict=True), strict=True
        ):
            yield self._pair_rows(pair, rows, losses)

    def _pair_rows(self, pair: int, rows: tuple[Tensor, ...], losses: list[float]) -> PairRows:
        encoded = self._pairs[pair]
        acts, grad_positive, grad_negative, *there = rows
        return PairRows(
            acts=acts,
            grad_positive=grad_positive,
            grad_negative=grad_negative,
            pair=encoded.pair,
            loss_positive=losses[0],
            loss_negative=losses[1],
            own=encoded.own_counted,
            counterpart=there[0] if there else None,
        )

    def _shards(self) -> list[range]:
        return shards(len(self._pairs))

    def _path(self, shard: range) -> Path:
        return self._directory / f"{shard.start:06d}.safetensors"
