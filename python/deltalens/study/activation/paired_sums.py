"""Both sides' latent means summed over prompts, a batch of prompts at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from deltalens.sae.encoder import BATCH_TOKENS, Encoder
from deltalens.study.activation.difference import ActivationDifference
from deltalens.study.activation.latent_means import segment_sums

Rows = tuple[Tensor, Tensor]
"""Activations of one prompt on both sides, [tokens, d_model] each."""


class PairedSums:
    """Sums over prompts of both sides' means, and of their difference's squares; fp64.

    Whole prompts are encoded together, at most BATCH_TOKENS tokens unless one has more.
    """

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._waiting: list[Rows] = []
        self._tokens = 0
        self._means, self._frequencies = torch.zeros(2, 2, encoder.n_latents, dtype=torch.float64)
        self._squares = torch.zeros(encoder.n_latents, dtype=torch.float64)
        self._prompts = 0

    def add(self, both: Rows) -> None:
        """A whole prompt, both sides of it."""
        size = sum(map(len, both))
        if self._waiting and self._tokens + size > BATCH_TOKENS:
            self._encode()
        self._waiting.append(both)
        self._tokens += size

    def _encode(self) -> None:
        segments = [side for both in self._waiting for side in both]
        lengths = torch.tensor([len(side) for side in segments])
        rows = torch.cat(segments)
        for start, sums, active in segment_sums(self._encoder, rows, lengths.tolist()):
            at = slice(start, start + sums.shape[1])
            means, shares = (
                (part / lengths[:, None]).unflatten(0, (-1, 2)) for part in (sums, active)
            )
            self._means[:, at] += means.sum(0)
            self._frequencies[:, at] += shares.sum(0)
            self._squares[at] += (means[:, 0] - means[:, 1]).square().sum(0)
        self._prompts += len(self._waiting)
        self._waiting, self._tokens = [], 0

    def result(self) -> dict[str, Tensor]:
        """The sums over the prompts added so far, at least one, as :func:`difference_of` takes
        them; those of other prompts add to them."""
        self._encode()
        return {
            "means": self._means,
            "frequencies": self._frequencies,
            "squares": self._squares,
            "prompts": torch.tensor([self._prompts]),
        }


def difference_of(
    sums: Mapping[str, Tensor], k: int, metadata: dict[str, Any]
) -> ActivationDifference:
    """What :class:`PairedSums` amount to: the k latents that differ most."""
    count = int(sums["prompts"])
    means, frequencies = sums["means"] / count, sums["frequencies"] / count
    difference = means[0] - means[1]
    variance = (sums["squares"] - count * difference.square()).clamp(min=0) / (count - 1 or 1)
    stderr = (variance / count).sqrt() if count > 1 else torch.full_like(difference, torch.nan)
    return ActivationDifference(
        latents=torch.argsort(difference, descending=True, stable=True)[:k],
        difference=difference,
        stderr=stderr,
        mean=means[0],
        mean_against=means[1],
        frequency=frequencies[0],
        frequency_against=frequencies[1],
        prompts=count,
        metadata=metadata,
    )
