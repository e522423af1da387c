"""Decoder rows, from a tensor or from anything that can produce a slice of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from deltalens.errors import InputError

DECODER_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


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
        """Rows ``start … stop - 1`` as a tensor [stop - start, d_model] in :attr:`dtype`."""
        ...


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


def as_decoder(W_dec: Tensor | Decoder) -> Decoder:
    """``W_dec`` as a :class:`Decoder`.

    Raises :class:`InputError` for a tensor that is not [n_latents, d_model] in
    float32, bfloat16 or float16, and for objects without the protocol's members.
    """
    if isinstance(W_dec, Tensor):
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


def tiles(decoder: Decoder, tile_rows: int) -> Iterator[tuple[int, Tensor]]:
    """``(start, rows)`` over the whole decoder, ``tile_rows`` rows at a time."""
    for start in range(0, decoder.n_latents, tile_rows):
        yield start, decoder.rows(start, min(start + tile_rows, decoder.n_latents))
