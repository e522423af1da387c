"""The logit lens of a latent: which tokens its direction writes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from deltalens.engine.decoder import Decoder, as_decoder
from deltalens.errors import InputError
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

    The cosine is taken with the rows of the unembedding as they are, in fp32, as the published
    method does; neither the final norm nor its weight is applied. Rows past the tokenizer's
    vocabulary (padding) are left out. ``tokenizer=None`` shows token ids as text. Raises
    :class:`InputError` for a decoder of another width or a latent it does not have.
    """
    unembedding = _unembedding(model)
    decoder = as_decoder(decoder)
    check_d_model(decoder, unembedding.shape[1], "the unembedding")
    if tokenizer is not None:
        unembedding = unembedding[: len(tokenizer)]
    units = unit(latent_rows(decoder, latents)).to(unembedding.device, torch.float32)
    ends = _extremes(units, unembedding, top), _extremes(-units, unembedding, top)
    promotes, suppresses = (_named(tokenizer, *end) for end in ends)
    negated = ([t._replace(cosine=-t.cosine) for t in tokens] for tokens in suppresses)
    return [
        LatentLens(int(latent), most, least)
        for latent, most, least in zip(latents, promotes, negated, strict=True)
    ]


def _unembedding(model: Any) -> Tensor:
    head = model.get_output_embeddings()
    if head is None:
        raise InputError(f"{type(model).__name__} has no unembedding; load it as a causal LM")
    return head.weight.detach()


def _extremes(units: Tensor, unembedding: Tensor, top: int) -> tuple[Tensor, Tensor]:
    """Cosines [k, top] and token ids [k, top] of the nearest rows, a tile of them at a time."""
    best = units.new_empty(units.shape[0], 0)
    tokens = torch.empty(units.shape[0], 0, dtype=torch.int64, device=units.device)
    for start in range(0, unembedding.shape[0], VOCABULARY_TILE):
        rows = unembedding[start : start + VOCABULARY_TILE].float()
        cosines = units @ nn.functional.normalize(rows, dim=1).T
        numbers = torch.arange(start, start + rows.shape[0], device=units.device)
        best = torch.cat([best, cosines], dim=1)
        tokens = torch.cat([tokens, numbers.expand_as(cosines)], dim=1)
        order = best.argsort(dim=1, descending=True, stable=True)[:, :top]
        best, tokens = best.gather(1, order), tokens.gather(1, order)
    return best, tokens


def _named(tokenizer: Any, cosines: Tensor, tokens: Tensor) -> Iterator[list[LensToken]]:
    for row_cosines, row_tokens in zip(cosines.tolist(), tokens.tolist(), strict=True):
        yield [
            LensToken(_text(tokenizer, token), token, cosine)
            for token, cosine in zip(row_tokens, row_cosines, strict=True)
        ]


def _text(tokenizer: Any, token: int) -> str:
    return str(token) if tokenizer is None else tokenizer.decode([token])
