"""The mean at one site: its sums over a piece of the texts, and what all of them amount to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from deltalens.errors import InputError
from deltalens.lm import Sinks, Site
from deltalens.lm.sinks import LeftOut, Sieve, SiftedRows
from deltalens.sae import as_sae
from deltalens.study.activation.latent_means import LatentSums, encoder_at
from deltalens.study.activation.pieces.cut import Piece
from deltalens.study.activation.pieces.store import Medians, SiteSums
from deltalens.study.baseline import Baseline


class SiteMean:
    """A site, and the SAE whose latents are averaged with its activations, if any."""

    def __init__(self, site: Site, sae: Any, sinks: Sinks | None) -> None:
        self.site, self.sinks = site, sinks
        self.sae = None if sae is None else as_sae(sae)
        self.encoder = None if sae is None else encoder_at(sae, site)

    def result(self, found: SiteSums, provenance: dict[str, Any]) -> Baseline:
        """Of the sums over all pieces; :class:`InputError` where they are over no token."""
        sums, (median,) = found
        tokens = int(sums["tokens"])
        if not tokens:
            raise no_token()
        left_out = LeftOut.of(sums["left_out"].tolist(), median, self.sinks)
        mean = Baseline(
            sums["total"] / tokens,
            tokens,
            self.site.name,
            {**provenance, "sinks": left_out.as_dict()},
            median_norm=median,
        )
        if self.sae is None:
            return mean
        return replace(mean, latent_mean=sums["latents"] / tokens, sae=self.sae.fingerprint)


def no_token() -> InputError:
    """What to raise where there is nothing to average."""
    return InputError(
        "the texts hold no token to average; give texts with more than their first token"
    )


class WindowSums:
    """Adds up what is counted at one site in a piece; medians: the site's, where it is known."""

    def __init__(
        self, at: SiteMean, include_bos: bool, piece: Piece, medians: Medians | None
    ) -> None:
        self._piece, self._include_bos = piece, include_bos
        self._sieve = Sieve(at.sinks, medians[0] if medians else None)
        self._latents = None if at.encoder is None else LatentSums(at.encoder)
        self._total = torch.zeros(at.site.d_model, dtype=torch.float64)
        self._tokens = 0

    def put(self, number: int, rows: Tensor) -> None:
        """Window ``number`` of the piece."""
        self._add(self._sieve.put(number, rows))

    def _add(self, sifted: Iterable[SiftedRows]) -> None:
        for number, rows, kept in sifted:
            kept[: self._piece.rows[number].first] = self._include_bos
            counted = rows[kept]
            self._total += counted.double().sum(0)
            self._tokens += len(counted)
            if self._latents is not None:
                self._latents.add(counted)

    def result(self) -> SiteSums:
        """Of the whole piece."""
        self._add(self._sieve.rest())
        sums = {
            "total": self._total,
            "tokens": torch.tensor(self._tokens),
            "left_out": self._sieve.left_out.counts,
        }
        if self._latents is not None:
            sums["latents"] = self._latents.result()
        return SiteSums(sums, [self._sieve.median])
