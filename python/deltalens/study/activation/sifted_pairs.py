"""What is compared at one site: sequences of two models, or of two completions, without sinks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from deltalens.errors import InputError
from deltalens.lm import Sinks, Site
from deltalens.lm.sinks import LeftOut, Sieve, SiftedRows
from deltalens.sae import SAE, as_sae
from deltalens.sae.encoder import Encoder
from deltalens.study.activation.difference import ActivationDifference
from deltalens.study.activation.latent_means import encoder_at
from deltalens.study.activation.paired_sums import PairedSums, difference_of
from deltalens.study.activation.pieces.cut import Piece
from deltalens.study.activation.pieces.store import Medians, SiteSums


class Compared:
    """A site and the SAE whose latents are compared there.

    Raises :class:`InputError` for an SAE that does not read there or has fewer than k latents.
    """

    def __init__(self, site: Site, source: Any, k: int, sinks: Sinks | None) -> None:
        self.site, self.sinks, self._k = site, sinks, k
        self.sae: SAE = as_sae(source)
        if not 1 <= k <= self.sae.W_dec.n_latents:
            raise InputError(
                f"k must be 1 … {self.sae.W_dec.n_latents}, the SAE's latents, got {k}"
            )
        self.encoder: Encoder = encoder_at(self.sae, site)

    def result(
        self, found: SiteSums, said: Mapping[str, Any], sides: Sequence[str]
    ) -> ActivationDifference:
        """The k latents that differ most, with what is ``said`` of the comparison; ``sides`` name
        the models whose sinks were told apart."""
        sums, medians = found
        left_out = {
            side: LeftOut.of(counts, median, self.sinks).as_dict()
            for side, counts, median in zip(sides, sums["left_out"].tolist(), medians, strict=True)
        }
        said = {
            **said,
            "site": self.site.name,
            "sae": str(self.sae.path),
            "sae_fingerprint": self.sae.fingerprint,
            "sinks": left_out,
        }
        return difference_of(sums, self._k, said)


class TwoModels:
    """A piece's prompts as two models read them; medians: of both, where they are known."""

    def __init__(self, at: Compared, piece: Piece, medians: Medians | None) -> None:
        self._sums = PairedSums(at.encoder)
        ours, theirs = medians or (None, None)
        self._ours, self._theirs = Sieve(at.sinks, ours), Sieve(at.sinks, theirs)
        self._piece = piece

    def put(self, number: int, rows: tuple[Tensor, Tensor]) -> None:
        """Prompt ``number`` of the piece, as both read it."""
        ours, theirs = rows
        self._add(self._ours.put(number, ours), self._theirs.put(number, theirs))

    def _add(self, ours: Iterable[SiftedRows], theirs: Iterable[SiftedRows]) -> None:
        for (n, a, a_kept), (_, b, b_kept) in zip(ours, theirs, strict=True):
            kept, label = a_kept & b_kept, f"prompt {self._piece.start + n + 1}"
            first = self._piece.rows[n].first
            self._sums.add((_left(a, kept, first, label), _left(b, kept, first, label)))

    def result(self) -> SiteSums:
        """Of the whole piece."""
        self._add(self._ours.rest(), self._theirs.rest())
        return _site_sums(self._sums, [self._ours, self._theirs])


class TwoCompletions:
    """Both completions of a piece's pairs, one after the other; medians: the site's, if known."""

    def __init__(self, at: Compared, piece: Piece, medians: Medians | None) -> None:
        self._sums = PairedSums(at.encoder)
        self._sieve = Sieve(at.sinks, medians[0] if medians else None)
        self._piece = piece
        self._positive: Tensor | None = None

    def put(self, number: int, rows: Tensor) -> None:
        """Row ``number`` of the piece."""
        self._add(self._sieve.put(number, rows))

    def _add(self, sifted: Iterable[SiftedRows]) -> None:
        for n, rows, kept in sifted:
            pair = (self._piece.start + n) // 2 + 1
            counted = _left(rows, kept, self._piece.rows[n].first, f"pair {pair}")
            if self._positive is None:
                self._positive = counted
            else:
                self._sums.add((self._positive, counted))
                self._positive = None

    def result(self) -> SiteSums:
        """Of the whole piece."""
        self._add(self._sieve.rest())
        return _site_sums(self._sums, [self._sieve])


def _site_sums(sums: PairedSums, sieves: Sequence[Sieve]) -> SiteSums:
    left_out = torch.stack([sieve.left_out.counts for sieve in sieves])
    return SiteSums({**sums.result(), "left_out": left_out}, [sieve.median for sieve in sieves])


def _left(rows: Tensor, kept: Tensor, first: int, label: str) -> Tensor:
    """The kept ones of ``rows`` from the token ``first`` on."""
    found = rows[first:][kept[first:]]
    if not len(found):
        raise InputError(
            f"{label}: no token is left: its first and those of massive norm are left out "
            "(sinks=None or --keep-sinks counts them)"
        )
    return found
