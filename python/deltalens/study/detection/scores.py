"""Scores of texts: the mean and the largest value over their tokens, of latents and a direction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import torch
from torch import Tensor

from deltalens.engine.decoder import as_decoder
from deltalens.errors import InputError
from deltalens.lm import Site
from deltalens.sae.encoder import BATCH_TOKENS, Encoder
from deltalens.study.activation.latent_means import encoder_at
from deltalens.study.detection.result import Over
from deltalens.study.latents import check_d_model, latent_indices, latent_rows, unit

OVER: tuple[Over, ...] = get_args(Over)
SAME = 1e-5  # of the largest score


@dataclass(frozen=True)
class LatentValues:
    """What chosen latents are at tokens: their activations, or (a − ā)·u on unit decoder rows.

    why: what keeps the SAE from being encoded with, where they are projections.
    """

    latents: list[int]
    encoder: Encoder | None
    units: Tensor
    mean: Tensor
    why: str | None

    @classmethod
    def of(cls, source: Any, latents: Sequence[int], site: Site, mean: Tensor) -> LatentValues:
        """Activations where ``source`` can be encoded with at ``site``.

        Raises :class:`InputError` for latents that it does not have, and for another width.
        """
        decoder = as_decoder(source)
        check_d_model(decoder, site.d_model, site.name)
        chosen = latent_indices(latents, decoder.n_latents)
        units = unit(latent_rows(decoder, chosen))
        try:
            return cls(chosen, encoder_at(source, site), units, mean, None)
        except InputError as error:
            return cls(chosen, None, units, mean, str(error))

    @property
    def name(self) -> str:
        """What the values are."""
        return "projection" if self.encoder is None else "activation"

    def __call__(self, acts: Tensor) -> Tensor:
        """fp64 [tokens, latents] of ``acts`` [tokens, d_model]; latents that compete do so with
        all others."""
        if self.encoder is None:
            return (acts.double() - self.mean) @ self.units.T
        return self.encoder.encode_selected(acts, self.latents).double()


def joined_ties(scores: Tensor) -> Tensor:
    """Places in the order of each column of ``scores`` [texts, columns], equal for values that
    differ by no more than rounding: texts share tokens, such as a template's, in other batches."""
    ordered, order = scores.sort(dim=0)
    apart = ordered.diff(dim=0) > SAME * scores.abs().amax(0)
    places = torch.cat([torch.zeros_like(ordered[:1]), apart.to(ordered).cumsum(0)])
    return torch.empty_like(places).scatter(0, order, places)


class TextScores:
    """Takes in texts one after the other and encodes some at a time; never tokens × latents of
    more than a batch."""

    def __init__(self, values: Callable[[Tensor], Tensor]) -> None:
        self._values = values
        self._waiting: list[Tensor] = []
        self._found: list[Tensor] = []

    def add(self, acts: Tensor) -> None:
        """A text's tokens, at least one: [tokens, d_model]."""
        if self._waiting and sum(map(len, self._waiting)) + len(acts) > BATCH_TOKENS:
            self._score()
        self._waiting.append(acts)

    def result(self) -> Tensor:
        """The mean and the largest value of each text, fp64 [texts, 2, columns]."""
        self._score()
        return torch.stack(self._found)

    def _score(self) -> None:
        if not self._waiting:
            return
        values = self._values(torch.cat(self._waiting))
        for part in values.split([len(acts) for acts in self._waiting]):
            self._found.append(torch.stack([part.mean(0), part.amax(0)]))
        self._waiting = []
