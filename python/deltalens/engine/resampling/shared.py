"""A decoder that several readers go through together, each in tiles of its own size."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

import torch
from torch import Tensor

from deltalens.engine.decoder import AHEAD_BYTES, Decoder, PagedDecoder, TensorDecoder


@contextmanager
def shared_reads(decoder: Decoder) -> Iterator[SharedReads]:
    """``decoder`` for several readers; what is still held of it is dropped in the end."""
    shared = SharedReads(decoder)
    try:
        yield shared
    finally:
        shared.drop_before(decoder.n_latents)


class SharedReads:
    """Rows that are read once for all readers that stay close together.

    Every reader asks for rising ranges. Rows are held until the reader furthest behind has asked
    for later ones; ranges that come again are read again.
    """

    def __init__(self, decoder: Decoder) -> None:
        self.decoder = decoder
        self._pieces: list[tuple[int, Tensor]] = []  # first latent and rows, in order
        self._places: dict[SharedReader, int] = {}
        self._lock = Lock()  # a reader's tiles may come from a thread of its own
        self._ahead = max(1, AHEAD_BYTES // (decoder.d_model * decoder.dtype.itemsize))

    def reader(self) -> Decoder:
        """The decoder for one more reader; a tensor, which costs nothing to read, itself."""
        return self.decoder if isinstance(self.decoder, TensorDecoder) else SharedReader(self)

    def rows(self, reader: SharedReader, start: int, stop: int) -> Tensor:
        """Rows for a reader that is done with everything before ``start``."""
        with self._lock:
            self._places[reader] = start
            self.drop_before(min(self._places.values()))
            parts = list(self._parts(start, stop))
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _parts(self, start: int, stop: int) -> Iterator[Tensor]:
        """The range from what is held and, where nothing is, from the decoder."""
        at = start
        for first, rows in list(self._pieces):
            if first >= stop:
                break
            if first + len(rows) <= at:
                continue
            if first > at:
                yield self._read(at, first)
            at = max(at, first)
            end = min(stop, first + len(rows))
            yield rows[at - first : end - first]
            at = end
        if at < stop:
            yield self._read(at, stop)

    def _read(self, start: int, stop: int) -> Tensor:
        rows = self.decoder.rows(start, stop)
        self._pieces.append((start, rows))
        self._pieces.sort(key=lambda piece: piece[0])
        if isinstance(self.decoder, PagedDecoder):
            self.decoder.prefetch(stop, min(stop + self._ahead, self.decoder.n_latents))
        return rows

    def drop_before(self, latent: int) -> None:
        """Forget the pieces that end there or before."""
        done = [piece for piece in self._pieces if piece[0] + len(piece[1]) <= latent]
        self._pieces = self._pieces[len(done) :]
        if isinstance(self.decoder, PagedDecoder):
            for start, rows in done:
                self.decoder.release(start, start + len(rows))


class SharedReader:
    """One reader's view of a shared decoder."""

    def __init__(self, shared: SharedReads) -> None:
        self._shared = shared

    @property
    def n_latents(self) -> int:
        return self._shared.decoder.n_latents

    @property
    def d_model(self) -> int:
        return self._shared.decoder.d_model

    @property
    def dtype(self) -> torch.dtype:
        return self._shared.decoder.dtype

    def rows(self, start: int, stop: int) -> Tensor:
        if start == stop:
            return self._shared.decoder.rows(start, stop)
        return self._shared.rows(self, start, stop)
