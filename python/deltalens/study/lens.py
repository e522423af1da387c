"""The logit lens of a latent: which tokens its direction writes."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from deltalens.engine.decoder import Decoder, as_decoder
from deltalens.lm.model.unembedding import Unembedding
from deltalens.study.latents import check_d_model, latent_rows, unit

VOCABULARY_TILE = 8192


class LensToken(NamedTuple):
    """A token and the cosine between its unembedding row and d_i."""

    text: str
    token_id: int
    cosine: float


@dataclass(frozen=True)
class LatentLens:
    """The tokens nearest to d_i (``promotes``) and to −d_i (``suppresses``), nearest first."""

    latent: int
    promotes: list[LensToken]
    suppresses: list[LensToken]


def lens(
    model: nn.Module,
    tokenizer: Any,
    decoder: Tensor | Decoder | Any,
    latents: Tensor | Sequence[int],
    *,
    top: int = 10,
) -> list[LatentLens]:
    """The ``top`` tokens at either end of every latent's direction, by cosine.

    The cosine is taken with the rows of the unembedding as it computes, with the adapters that
    are active, in fp32, as the published method does; neither the final norm nor its weight is
    applied. Rows past the tokenizer's vocabulary (padding) are left out. ``tokenizer=None`` shows
    token ids as text. Raises :class:`InputError` for a decoder of another width, a latent it does
    not have, and a head that is not linear.
    """
    unembedding = Unembedding(model)
    decoder = as_decoder(decoder)
    check_d_model(decoder, unembedding.d_model, "the unembedding")
    vocabulary = None if tokenizer is None else len(tokenizer)
    units = unit(latent_rows(decoder, latents)).to(torch.float32)
    nearest, farthest = _Nearest(top), _Nearest(top)
    for start, cosines in unembedding.cosines(units, vocabulary, VOCABULARY_TILE):
        nearest.add(start, cosines)
        farthest.add(start, -cosines)
    promotes, suppresses = (_named(tokenizer, *end.found) for end in (nearest, farthest))
    negated = ([t._replace(cosine=-t.cosine) for t in tokens] for tokens in suppresses)
    return [
        LatentLens(int(latent), most, least)
        for latent, most, least in zip(latents, promotes, negated, strict=True)
    ]


def lens_if_possible(*args: Any, **options: Any) -> list[LatentLens]:
    """:func:`lens`, or nothing and a warning that says why there is none.

    For results that are complete without it.
    """
    try:
        return lens(*args, **options)
    except Exception as error:  # heads and tokenizers raise whatever their authors chose
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        warnings.warn(f"no logit lens: {reason}", stacklevel=2)
        return []


class _Nearest:
    """The ``top`` largest cosines of every row seen so far, the first of equal ones first."""

    def __init__(self, top: int) -> None:
        self._top = top
        self._parts: list[tuple[Tensor, Tensor]] = []

    def add(self, start: int, cosines: Tensor) -> None:
        """Take in the cosines [k, tile] with the tokens from ``start`` on."""
        tokens = torch.arange(start, start + cosines.shape[1], device=cosines.device)
        self._parts.append((cosines, tokens.expand_as(cosines)))
        best, found = (torch.cat(column, dim=1) for column in zip(*self._parts, strict=True))
        # Sorting is slow: only columns that are among the best of any row are.
        least = best.topk(min(self._top, best.shape[1]), dim=1).values[:, -1:]
        columns = (best >= least).any(0).nonzero()[:, 0]
        best, found = best[:, columns], found[:, columns]
        order = best.argsort(dim=1, descending=True, stable=True)[:, : self._top]
        self._parts = [(best.gather(1, order), found.gather(1, order))]

    @property
    def found(self) -> tuple[Tensor, Tensor]:
        """Cosines and token ids, [k, top] each."""
        return self._parts[0]


def _named(tokenizer: Any, cosines: Tensor, tokens: Tensor) -> Iterator[list[LensToken]]:
    for row_cosines, row_tokens in zip(cosines.tolist(), tokens.tolist(), strict=True):
        yield [
            LensToken(_text(tokenizer, token), token, cosine)
            for token, cosine in zip(row_tokens, row_cosines, strict=True)
        ]


def _text(tokenizer: Any, token: int) -> str:
    return str(token) if tokenizer is None else tokenizer.decode([token])
