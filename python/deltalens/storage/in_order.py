"""Results put back into order, on disk where memory for those that wait runs short."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import IO, Generic, TypeVar

import torch
from torch import Tensor

HELD_BYTES = 128 << 20
"""Of results that wait for an earlier one; those beyond it lie in a temporary file."""

Note = TypeVar("Note")


@dataclass(frozen=True)
class Arrival(Generic[Note]):
    """The result with number ``index``: float32 tensors on the CPU, and what goes with them."""

    index: int
    tensors: list[Tensor]
    note: Note


def in_order(arrivals: Iterable[Arrival[Note]]) -> Iterator[Arrival[Note]]:
    """The same results by index from 0 on; every index has to come once."""
    following = 0
    with tempfile.TemporaryFile(prefix="deltalens-") as file:
        waiting: _Waiting[Note] = _Waiting(file)
        for arrival in arrivals:
            if arrival.index != following:
                waiting.put(arrival)
                continue
            yield arrival
            following += 1
            while following in waiting:
                yield waiting.take(following)
                following += 1


class _Waiting(Generic[Note]):
    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._held: dict[int, Arrival[Note]] = {}
        self._filed: dict[int, tuple[int, list[torch.Size], Note]] = {}
        self._bytes = self._end = 0

    def __contains__(self, index: int) -> bool:
        return index in self._held or index in self._filed

    def put(self, arrival: Arrival[Note]) -> None:
        size = sum(tensor.nbytes for tensor in arrival.tensors)
        if self._bytes + size <= HELD_BYTES:
            self._held[arrival.index] = arrival
            self._bytes += size
            return
        self._filed[arrival.index] = self._end, [t.shape for t in arrival.tensors], arrival.note
        self._file.seek(self._end)
        for tensor in arrival.tensors:
            self._file.write(tensor.contiguous().numpy().tobytes())
        self._end += size

    def take(self, index: int) -> Arrival[Note]:
        if index in self._held:
            arrival = self._held.pop(index)
            self._bytes -= sum(tensor.nbytes for tensor in arrival.tensors)
            return arrival
        start, shapes, note = self._filed.pop(index)
        self._file.seek(start)
        return Arrival(index, [self._read(shape) for shape in shapes], note)

    def _read(self, shape: torch.Size) -> Tensor:
        stored = bytearray(self._file.read(shape.numel() * torch.float32.itemsize))
        return torch.frombuffer(stored, dtype=torch.float32).view(shape)
