"""Decoder rows, from a tensor or from anything that can produce a slice of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from deltalens.errors import InputError

DECODER_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
ROW_DTYPES = (*DECODER_DTYPES, torch.float64)
AHEAD_BYTES = 32 << 20
READ_BYTES = 8 << 20

Reader = Callable[[int, int], Tensor]
"""Gives rows ``start … stop - 1`` of a matrix."""


@runtime_checkable
class Decoder(Protocol):
    """Rows d_i of an SAE decoder, read a slice at a time so that a file may exceed memory."""

    @property
    def n_latents(self) -> int: ...

    @property
    def d_model(self) -> int: ...

    @property
    def dtype(self) -> torch.dtype: ...

    def rows(self, start: int, stop: int) -> Tensor:
        """Rows ``start … stop - 1`` as a tensor [stop - start, d_model] in ``dtype``."""
        ...


@runtime_checkable
class PagedDecoder(Decoder, Protocol):
    """A decoder whose rows can be fetched before they are asked for and dropped afterwards.

    Neither changes what ``rows`` returns: rows that were dropped are read again.
    """

    def reader(self) -> Reader:
        """``rows`` for one pass, that wait for the disk. A scan calls it ahead of what it uses,
        from a thread of its own."""
        ...

    def prefetch(self, start: int, stop: int) -> None:
        """Begin to read rows ``start … stop - 1``."""
        ...

    def release(self, start: int, stop: int) -> None:
        """Drop rows ``start … stop - 1`` from this process's memory."""
        ...


def check_dense(name: str, value: Tensor) -> None:
    """``value`` has its numbers in memory, one after the other or in strides."""
    if value.is_nested or value.layout != torch.strided:
        kind = "nested" if value.is_nested else str(value.layout).removeprefix("torch.")
        raise InputError(f"{name} must be a dense tensor, got a {kind} one; make it dense")
    if value.is_meta:
        raise InputError(f"{name} is on the meta device and has no values; load its weights")


class TensorDecoder:
    """A decoder that is a tensor [n_latents, d_model] on any device."""

    def __init__(self, W_dec: Tensor) -> None:
        self._W_dec = W_dec.detach()

    @property
    def n_latents(self) -> int:
        return self._W_dec.shape[0]

    @property
    def d_model(self) -> int:
        return self._W_dec.shape[1]

    @property
    def dtype(self) -> torch.dtype:
        return self._W_dec.dtype

    def rows(self, start: int, stop: int) -> Tensor:
        return self._W_dec[start:stop]


class HasDecoder(Protocol):
    """An SAE: ours, or any library's that keeps its decoder under this name."""

    @property
    def W_dec(self) -> Tensor | Decoder: ...


def as_decoder(W_dec: Tensor | Decoder | HasDecoder) -> Decoder:
    """``W_dec`` as a :class:`Decoder`; of an SAE, such as SAELens's, its attribute ``W_dec``.

    Raises :class:`InputError` for a tensor that is not [n_latents, d_model] in
    float32, bfloat16 or float16, and for objects without the protocol's members.
    """
    if not isinstance(W_dec, Tensor):
        W_dec = getattr(W_dec, "W_dec", W_dec)
    if isinstance(W_dec, Tensor):
        check_dense("W_dec", W_dec)
        if W_dec.ndim != 2:
            raise InputError(f"W_dec must be [n_latents, d_model], got shape {tuple(W_dec.shape)}")
        decoder: Decoder = TensorDecoder(W_dec)
    elif isinstance(W_dec, Decoder):
        decoder = W_dec
    else:
        raise InputError(
            "W_dec must be a tensor or have n_latents, d_model, dtype and rows(start, stop); "
            f"got {type(W_dec).__name__}"
        )
    if decoder.dtype not in DECODER_DTYPES:
        raise InputError(f"W_dec must be float32, bfloat16 or float16, got {decoder.dtype}")
    if decoder.n_latents < 1 or decoder.d_model < 1:
        raise InputError(f"W_dec is empty: {decoder.n_latents} latents × {decoder.d_model}")
    return decoder


def tiles(
    decoder: Decoder, tile_rows: int, numbers: range | None = None
) -> Iterator[tuple[int, Tensor]]:
    """``(start, rows)`` over the whole decoder, ``tile_rows`` rows at a time; or of those tiles
    that have the consecutive ``numbers``.

    Of a :class:`PagedDecoder` the next 32 MB are read while a tile is in use, 8 MB or a tile at a
    time, and a tile is released when the next one is asked for.
    """
    first, end = 0, decoder.n_latents
    if numbers is not None:
        first, end = (min(at * tile_rows, end) for at in (numbers.start, numbers.stop))
    if isinstance(decoder, PagedDecoder):
        for begin, rows in read_ahead(decoder, tile_rows, first, end):
            for start, stop in _spans(begin, begin + rows.shape[0], tile_rows):
                yield start, rows[start - begin : stop - begin]
                decoder.release(start, stop)
    else:
        for start, stop in _spans(first, end, tile_rows):
            yield start, decoder.rows(start, stop)


def tile_count(decoder: Decoder, tile_rows: int) -> int:
    """How many tiles a decoder has."""
    return -(-decoder.n_latents // tile_rows)


def read_ahead(
    decoder: PagedDecoder, tile_rows: int, first: int, last: int
) -> Generator[tuple[int, Tensor]]:
    """``(start, rows)`` from ``first`` to ``last``, several tiles at a time; the next are read
    meanwhile."""
    row_bytes = decoder.d_model * decoder.dtype.itemsize
    step = tile_rows * max(1, READ_BYTES // (tile_rows * row_bytes))
    read = decoder.reader()
    with ThreadPoolExecutor(1, "deltalens-read") as reader:
        ahead = max(1, AHEAD_BYTES // (step * row_bytes))
        spans = _spans(first, last, step)
        coming = deque(reader.submit(read, *span) for span in islice(spans, ahead))
        for start in range(first, last, step):
            rows = coming.popleft().result()
            coming.extend(reader.submit(read, *span) for span in islice(spans, 1))
            yield start, rows
            del rows  # its memory is free to be read into while the next is waited for


def _spans(first: int, last: int, tile_rows: int) -> Iterator[tuple[int, int]]:
    for start in range(first, last, tile_rows):
        yield start, min(start + tile_rows, last)


def gather_rows(decoder: Decoder, latents: Tensor) -> Tensor:
    """Rows [c, d_model] of the given latents; from anything but a tensor read one by one."""
    if isinstance(decoder, TensorDecoder):
        rows = decoder.rows(0, decoder.n_latents)
        return rows[latents.to(rows.device)]
    if isinstance(decoder, PagedDecoder):
        # All at once, and so that no fault makes the system read megabytes around a row.
        for latent in latents.tolist():
            decoder.prefetch(latent, latent + 1)
    return torch.cat([decoder.rows(0, 0), *(_row(decoder, i) for i in latents.tolist())])


def _row(decoder: Decoder, latent: int) -> Tensor:
    if not isinstance(decoder, PagedDecoder):
        return decoder.rows(latent, latent + 1)
    row = decoder.rows(latent, latent + 1).clone()
    decoder.release(latent, latent + 1)
    return row
