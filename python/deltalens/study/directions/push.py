"""The push and the presence of any latent of a study, ranked or not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from deltalens.engine.decoder import as_decoder
from deltalens.errors import InputError
from deltalens.pairs.identity import decoder_fingerprint
from deltalens.study.attribution import Attribution
from deltalens.study.directions.means import DIRECTIONS_FILE, Directions
from deltalens.study.latents import latent_rows, unit


def push_of(result: Attribution, decoder: Any, latents: Tensor | Sequence[int]) -> Tensor:
    """−mean_t γ_t·d_i of any latents of a study, fp64 [n]: > 0 where adding d_i raises log p(C).

    decoder: the SAE, or whatever else the study was made with. Rows are normalised where the study
    normalises them, so for ranked latents this is the push that ``result`` has of them; of a study
    with score="latent" d_i is the decoder row as stored. Raises :class:`InputError` for a run
    without directions, another decoder, and latents it does not have.
    """
    return _products(result, decoder, latents, directions_of(result, decoder).push)


def presence_of(result: Attribution, decoder: Any, latents: Tensor | Sequence[int]) -> Tensor:
    """mean_t (a_t − ā)·d_i of any latents of a study of directions, fp64 [n], as
    :func:`push_of`."""
    return _products(result, decoder, latents, directions_of(result, decoder).presence)


def _products(
    result: Attribution, decoder: Any, latents: Tensor | Sequence[int], direction: Tensor
) -> Tensor:
    rows = latent_rows(as_decoder(decoder), latents)
    return (unit(rows) if result.metadata["options"]["normalize"] else rows) @ direction


def directions_of(result: Attribution, decoder: Any) -> Directions:
    """The directions of a study, to be multiplied with the rows of ``decoder``.

    Raises :class:`InputError` where there are none, and for another decoder than the study's.
    """
    if result.directions is None:
        raise InputError(
            f"the run has no {DIRECTIONS_FILE}, it is of an earlier version; "
            "run deltalens attribute again, into another directory"
        )
    found = decoder_fingerprint(decoder, as_decoder(decoder))
    if found != result.metadata["fingerprints"]["sae"]:
        raise InputError(
            "the decoder is another than the study's; give the SAE that attribute was given"
        )
    return result.directions
