"""What is compared at one site: sequences of two models, or of two completions, without sinks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor

from deltalens.errors import InputError
from deltalens.lm import Sinks, Site
from deltalens.lm.sinks import Sieve, SiftedRows
from deltalens.sae import SAE, as_sae
from deltalens.study.activation.difference import ActivationDifference
from deltalens.study.activation.latent_means import encoder_at
from deltalens.study.activation.paired_sums import PairedSums, Rows


class SiteSums:
    """Sums of one site's latents, and the SAE they are of.

    Raises :class:`InputError` for an SAE that does not read there or has fewer than k latents.
    """

    def __init__(self, site: Site, source: Any, k: int) -> None:
        self._site, self._k = site, k
        self._sae: SAE = as_sae(source)
        if not 1 <= k <= self._sae.W_dec.n_latents:
            raise InputError(
                f"k must be 1 … {self._sae.W_dec.n_latents}, the SAE's latents, got {k}"
            )
        self._sums = PairedSums(encoder_at(self._sae, site))

    def add(self, both: Rows) -> None:
        """A whole prompt, both sides of it."""
        self._sums.add(both)

    def result(self, said: dict[str, Any], sinks: dict[str, Any]) -> ActivationDifference:
        """The k latents that differ most, with what is ``said`` of the comparison."""
        said = {
            **said,
            "site": self._site.name,
            "sae": str(self._sae.path),
            "sae_fingerprint": self._sae.fingerprint,
            "sinks": sinks,
        }
        return self._sums.result(self._k, said)


class TwoModels:
    """Prompts as two models read them; ``first``: each one's first token that counts."""

    def __init__(
        self, site: Site, source: Any, k: int, sinks: Sinks | None, first: Sequence[int]
    ) -> None:
        self._sums = SiteSums(site, source, k)
        self._ours, self._theirs = Sieve(sinks), Sieve(sinks)
        self._first = first

    def put(self, number: int, ours: Tensor, theirs: Tensor) -> None:
        self._add(self._ours.put(number, ours), self._theirs.put(number, theirs))

    def _add(self, ours: Iterable[SiftedRows], theirs: Iterable[SiftedRows]) -> None:
        for (n, a, a_kept), (_, b, b_kept) in zip(ours, theirs, strict=True):
            kept, label = a_kept & b_kept, f"prompt {n + 1}"
            first = self._first[n]
            both = _left(a, kept, first, label), _left(b, kept, first, label)
            self._sums.add(both)

    def result(self, said: dict[str, Any]) -> ActivationDifference:
        self._add(self._ours.rest(), self._theirs.rest())
        sinks = {
            "model": self._ours.left_out.as_dict(),
            "against": self._theirs.left_out.as_dict(),
        }
        return self._sums.result(said, sinks)


class TwoCompletions:
    """Both completions of pairs, one after the other; ``first``: each pair's first that counts."""

    def __init__(
        self, site: Site, source: Any, k: int, sinks: Sinks | None, first: Sequence[int]
    ) -> None:
        self._sums = SiteSums(site, source, k)
        self._sieve = Sieve(sinks)
        self._first = first
        self._positive: Tensor | None = None

    def put(self, number: int, rows: Tensor) -> None:
        self._add(self._sieve.put(number, rows))

    def _add(self, sifted: Iterable[SiftedRows]) -> None:
        for number, rows, kept in sifted:
            pair = number // 2
            counted = _left(rows, kept, self._first[pair], f"pair {pair + 1}")
            if self._positive is None:
                self._positive = counted
            else:
                self._sums.add((self._positive, counted))
                self._positive = None

    def result(self, said: dict[str, Any]) -> ActivationDifference:
        self._add(self._sieve.rest())
        return self._sums.result(said, {"model": self._sieve.left_out.as_dict()})


def _left(rows: Tensor, kept: Tensor, first: int, label: str) -> Tensor:
    """The kept ones of ``rows`` from the token ``first`` on."""
    found = rows[first:][kept[first:]]
    if not len(found):
        raise InputError(
            f"{label}: no token is left: its first and those of massive norm are left out "
            "(sinks=None or --keep-sinks counts them)"
        )
    return found
