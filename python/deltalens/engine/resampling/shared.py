"""A decoder that several readers go through together, each in tiles of its own size."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from threading import Lock

import torch
from torch import Tensor

from deltalens.engine.decoder import Decoder, PagedDecoder, TensorDecoder, read_ahead


@contextmanager
def shared_reads(decoder: Decoder) -> Iterator[SharedReads]:
    """``decoder`` for several readers; what is still held of it is dropped in the end."""
    shared = SharedReads(decoder)
    try:
        yield shared
    finally:
        shared.close()


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
        self._coming: Generator[tuple[int, Tensor]] | None = None
        self._next = 0  # the latent that it goes on with

    def reader(self) -> Decoder:
        """The decoder for one more reader; a tensor, which costs nothing to read, itself."""
        return self.decoder if isinstance(self.decoder, TensorDecoder) else SharedReader(self)

    def rows(self, reader: SharedReader, start: int, stop: int) -> Tensor:
        """Rows for a reader that is done with everything before ``start``."""
        with self._lock:
            self._places[reader] = start
            self.drop_before(min(self._places.values()))
            for gap in self._gaps(start, stop):
                self._read(*gap)
            parts = list(self._parts(start, stop))
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _gaps(self, start: int, stop: int) -> list[tuple[int, int]]:
        """What of a range is not held."""
        gaps = []
        for first, rows in self._pieces:
            if first >= stop:
                break
            if first > start:
                gaps.append((start, first))
            start = max(start, first + len(rows))
        return [*gaps, (start, stop)] if start < stop else gaps

    def _parts(self, start: int, stop: int) -> Iterator[Tensor]:
        """A range that is held."""
        for first, rows in self._pieces:
            part = rows[max(0, start - first) : max(0, stop - first)]
            if len(part):
                yield part

    def _read(self, start: int, stop: int) -> None:
        """Hold a range of which nothing is held: what was dropped, and what is read for the first
        time, to the end of what is read at once."""
        if not isinstance(self.decoder, PagedDecoder):
            self._hold(start, self.decoder.rows(start, stop))
            return
        if self._coming is None:
            self._coming = read_ahead(self.decoder, stop - start, start, self.decoder.n_latents)
            self._next = start
        if start < self._next:
            self._hold(start, self.decoder.rows(start, min(stop, self._next)))
        while self._next < stop:
            first, rows = next(self._coming)
            self._hold(first, rows)
            self._next = first + len(rows)

    def _hold(self, first: int, rows: Tensor) -> None:
        self._pieces.append((first, rows))
        self._pieces.sort(key=lambda piece: piece[0])

    def drop_before(self, latent: int) -> None:
        """Forget the pieces that end there or before."""
        done = [piece for piece in self._pieces if piece[0] + len(piece[1]) <= latent]
        self._pieces = self._pieces[len(done) :]
        if isinstance(self.decoder, PagedDecoder):
            for start, rows in done:
                self.decoder.release(start, start + len(rows))

    def close(self) -> None:
        """Read no further, and hold nothing."""
        if self._coming is not None:
            self._coming.close()
        self.drop_before(self.decoder.n_latents)


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
        stop = min(stop, self.n_latents)
        if start >= stop:
            return self._shared.decoder.rows(start, stop)
        return self._shared.rows(self, start, stop)
