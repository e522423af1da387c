"""Mean latent activations over tokens, a batch of rows at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from deltalens.errors import InputError
from deltalens.lm import Site
from deltalens.sae import as_sae
from deltalens.sae.encoder import BATCH_TOKENS, Encoder
from deltalens.study.latents import check_reads


def encoder_at(source: Any, site: Site) -> Encoder:
    """The encoder of an SAE, ours or SAELens's, that reads activations of ``site``.

    Raises :class:`InputError` when it cannot be encoded with, or reads another width or place.
    """
    check_reads(source, site)
    encoder = as_sae(source).encoder()
    if encoder.d_in != site.d_model:
        raise InputError(
            f"the SAE reads d_model {encoder.d_in} but {site.name} has {site.d_model}; "
            "use the SAE of this model and layer"
        )
    return encoder


class LatentSums:
    """Adds up latents of rows as they come; never tokens × n_latents in memory."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._waiting: list[Tensor] = []
        self._total = torch.zeros(encoder.n_latents, dtype=torch.float64)

    def add(self, rows: Tensor) -> None:
        """Activations [tokens, d_in] of further tokens, possibly none."""
        self._waiting.append(rows)
        if sum(map(len, self._waiting)) >= BATCH_TOKENS:
            self._encode()

    def result(self) -> Tensor:
        """The sums fp64 [n_latents] over all tokens added so far."""
        self._encode()
        return self._total

    def _encode(self) -> None:
        rows = torch.cat(self._waiting) if self._waiting else torch.empty(0)
        self._waiting = []
        for batch in rows.split(BATCH_TOKENS) if len(rows) else ():
            for start, sums, _ in segment_sums(self._encoder, batch, [len(batch)]):
                self._total[start : start + sums.shape[1]] += sums[0]


def segment_sums(
    encoder: Encoder, rows: Tensor, lengths: Sequence[int]
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """(start, sums of z, tokens with z > 0) of consecutive segments, tile by tile of latents.

    rows: activations [sum of lengths, d_in]; sums and counts fp64 [segments, n] on the CPU.
    """
    for start, z in encoder.encode_tiles(rows):
        parts = z.split(list(lengths))
        sums = torch.stack([part.sum(dim=0, dtype=torch.float64) for part in parts])
        active = torch.stack([(part > 0).sum(dim=0) for part in parts])
        yield start, sums.cpu(), active.double().cpu()
