"""Attention sinks: tokens of massive norm that carry no meaning, and what is left out for them.

The first token a model reads, and a few others, have norms a hundred times the median of their
layer in most language models (Sun et al. 2024, "Massive activations"). A score is quadratic in
activations, so one such token outweighs all others, and first order says nothing of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from deltalens.errors import InputError
from deltalens.lm.activations import activations, activations_at
from deltalens.lm.batching import BATCH_TOKENS
from deltalens.lm.pairs import pair_label
from deltalens.lm.sites import Site
from deltalens.lm.text.encoded import EncodedPair

MEASURED_TOKENS = 4096  # from which a stream's median is taken

Rows = tuple[int, Tensor]
SiftedRows = tuple[int, Tensor, Tensor]


@dataclass(frozen=True)
class Sinks:
    """Which tokens are left out: the first that the model reads of every text, and those whose
    activation has more than ``times_median`` times the site's median norm."""

    times_median: float = 10.0

    def __post_init__(self) -> None:
        if not self.times_median > 1:
            raise InputError(
                f"sinks are tokens above the median norm; times_median must be above 1, got "
                f"{self.times_median}; give sinks=None to leave nothing out"
            )

    def limit(self, median: float) -> float:
        """The largest norm that is no sink's."""
        return self.times_median * median


SINKS = Sinks()
"""What functions leave out where nothing is said."""


@dataclass(frozen=True)
class LeftOut:
    """How many tokens were left out of how many: by place, and by norm above ``limit``.

    ``median`` is the site's median norm; both are None where nothing is left out.
    """

    first: int
    massive: int
    tokens: int
    median: float | None
    limit: float | None

    @classmethod
    def of(cls, counts: Sequence[int], median: float | None, sinks: Sinks | None) -> LeftOut:
        """counts: by place, by norm, of how many."""
        first, massive, tokens = counts
        limit = None if sinks is None or median is None else sinks.limit(median)
        return cls(first, massive, tokens, median, limit)

    @property
    def counts(self) -> Tensor:
        """By place, by norm, of how many: int64 [3]; those of other sequences add up."""
        return torch.tensor([self.first, self.massive, self.tokens])

    def as_dict(self) -> dict[str, Any]:
        """For metadata."""
        return dict(vars(self))


def no_sink(rows: Tensor, limit: float) -> Tensor:
    """bool [tokens] of one sequence's ``rows`` [tokens, d_model]: false for sinks."""
    kept = rows.norm(dim=1) <= limit
    kept[0] = False
    return kept


def median_norm(sequences: Iterable[Tensor]) -> float:
    """Median over tokens of the norms of ``sequences``, [tokens, d_model] each, but their first
    tokens; over those too where there are no others."""
    norms = [rows.norm(dim=1) for rows in sequences]
    later = torch.cat([one[1:] for one in norms])
    return float((later if len(later) else torch.cat(norms)).median())


def site_median(model: Any, sequences: Iterable[list[int]], site: Site) -> float:
    """:func:`median_norm` at ``site`` of as many sequences as hold :data:`MEASURED_TOKENS`."""
    return median_norm(rows for _, rows in activations(model, _enough(sequences), site=site))


def _enough(sequences: Iterable[list[int]]) -> Iterator[list[int]]:
    tokens = 0
    for ids in sequences:
        yield ids
        tokens += len(ids)
        if tokens >= MEASURED_TOKENS:
            return


class Sieve:
    """Tells sinks among sequences that are put in one after the other; a site has its own.

    The median is that of the sequences up to :data:`MEASURED_TOKENS` tokens, which are held back so
    long, unless it is given; it does not depend on batches. With ``sinks`` None nothing is left
    out.
    """

    def __init__(self, sinks: Sinks | None, median: float | None = None) -> None:
        self._sinks = sinks
        self._first = self._massive = self._tokens = 0
        self._held: list[tuple[int, Tensor]] | None = [] if median is None else None
        self.median = median

    @property
    def left_out(self) -> LeftOut:
        """Of what has come out so far."""
        return LeftOut.of((self._first, self._massive, self._tokens), self.median, self._sinks)

    def put(self, number: int, rows: Tensor) -> Iterator[SiftedRows]:
        """Take in a sequence; what comes out is it, or nothing, or all that were held back.

        ``number`` is any that the sequence is to be known by.
        """
        if self._held is None:
            yield number, rows, self._kept(rows)
            return
        self._held.append((number, rows))
        if sum(len(one) for _, one in self._held) >= MEASURED_TOKENS:
            yield from self.rest()

    def rest(self) -> Iterator[SiftedRows]:
        """What is still held back when no more sequences come."""
        held, self._held = self._held, None
        if not held:
            return
        self.median = median_norm(rows for _, rows in held)
        for number, rows in held:
            yield number, rows, self._kept(rows)

    def _kept(self, rows: Tensor) -> Tensor:
        self._tokens += len(rows)
        if self._sinks is None or self.median is None:
            return torch.ones(len(rows), dtype=torch.bool)
        kept = no_sink(rows, self._sinks.limit(self.median))
        self._first += 1
        self._massive += int((~kept[1:]).sum())
        return kept


class Sifted:
    """(number, rows, bool [tokens] without sinks) of a stream of sequences' rows."""

    def __init__(self, stream: Iterable[Rows], sinks: Sinks | None) -> None:
        self._stream = stream
        self._sieve = Sieve(sinks)

    @property
    def median(self) -> float | None:
        """The site's median norm, once it is known."""
        return self._sieve.median

    @property
    def left_out(self) -> LeftOut:
        """Of what has been read so far."""
        return self._sieve.left_out

    def __iter__(self) -> Iterator[SiftedRows]:
        for number, rows in self._stream:
            yield from self._sieve.put(number, rows)
        yield from self._sieve.rest()


Counted = tuple[list[EncodedPair], LeftOut]
"""Pairs with sinks among their prompts' tokens no longer counted, and how many those were."""


def without_sinks(
    model: Any,
    encoded: Sequence[EncodedPair],
    site: Site,
    sinks: Sinks | None,
    *,
    median: float | None = None,
    batch_tokens: int = BATCH_TOKENS,
) -> Counted:
    """The pairs with sinks among their prompts' tokens no longer counted.

    median: the site's median norm where it is known; else that of the prompts. The blocks up to the
    site read every prompt once. Raises :class:`InputError` naming a pair that no token is left of.
    """
    (found,) = without_sinks_at(
        model, encoded, [site], sinks, medians=[median], batch_tokens=batch_tokens
    )
    return found


def without_sinks_at(
    model: Any,
    encoded: Sequence[EncodedPair],
    sites: Sequence[Site],
    sinks: Sinks | None,
    *,
    medians: Sequence[float | None],
    batch_tokens: int = BATCH_TOKENS,
) -> list[Counted]:
    """:func:`without_sinks` for each of several sites, whose prompts are read in one pass."""
    if sinks is None:
        return [(list(encoded), LeftOut(0, 0, _counted(encoded), None, None)) for _ in sites]
    numbered = [(ids, n) for n, pair in enumerate(encoded, 1) for ids in _sequences(pair)]
    first_with = dict(reversed(numbered))
    prompts = list(first_with)[::-1]

    def label(number: int) -> str:
        pair = first_with[prompts[number]]
        return pair_label(encoded[pair - 1].pair, pair)

    stream = activations_at(
        model,
        map(list, prompts),
        sites,
        reduce=lambda rows: rows.norm(dim=1, keepdim=True),
        batch_tokens=batch_tokens,
        label=label,
    )
    norms = [of_sites for _, of_sites in stream]
    return [
        _without(encoded, dict(zip(prompts, of_prompts, strict=True)), sinks, median)
        for of_prompts, median in zip(zip(*norms, strict=True), medians, strict=True)
    ]


def _sequences(pair: EncodedPair) -> list[tuple[int, ...]]:
    """What the positive and the negative completion are read after, and a counterpart."""
    positive, negative = (tuple(row.prompt_ids) for row in pair.rows)
    other = () if pair.counterpart is None else (tuple(pair.counterpart.ids),)
    return [positive, negative, *other]


def _without(
    encoded: Sequence[EncodedPair],
    norms: dict[tuple[int, ...], Tensor],
    sinks: Sinks,
    median: float | None,
) -> Counted:
    """norms: of every prompt, [tokens, 1]."""
    median = median_norm(norms.values()) if median is None else median
    limit = sinks.limit(median)
    kept = {prompt: no_sink(one, limit).tolist() for prompt, one in norms.items()}
    found = [
        _kept_only(pair, [kept[ids] for ids in _sequences(pair)], number)
        for number, pair in enumerate(encoded, start=1)
    ]
    first = sum(map(_counted_first, encoded))
    counted = _counted(encoded)
    left = counted - _counted(found)
    return found, LeftOut(first, left - first, counted, median, limit)


def _counted(encoded: Sequence[EncodedPair]) -> int:
    return sum(pair.counted_rows for pair in encoded)


def _counted_first(pair: EncodedPair) -> int:
    """How many first tokens are counted: one, or one of each prompt where these have none alike."""
    firsts = [pair.counted[:1]] if pair.counted else [own.counted[:1] for own in pair.own]
    return sum(map(sum, firsts))


def _kept_only(pair: EncodedPair, kept: Sequence[list[bool]], number: int) -> EncodedPair:
    """kept: of each of the pair's sequences."""
    positive, negative, *other = kept
    shared = len(pair.counted)
    counted = _both(pair.counted, positive[:shared])
    own = [
        replace(one, counted=_both(one.counted, of_side[shared:]))
        for one, of_side in zip(pair.own, (positive, negative), strict=True)
    ]
    if pair.counterpart is not None:
        (there,) = other
        places = pair.counterpart.places
        counted = _both(counted, [place is not None and there[place] for place in places])
    found = replace(pair, counted=counted, own=(own[0], own[1]))
    if not all(any(row.counted) for row in found.rows):
        raise InputError(
            f"{pair_label(pair.pair, number)}: no token of the prompt is left to count: its first "
            "and those of massive norm are left out (sinks=None or --keep-sinks counts them)"
        )
    return found


def _both(counted: Sequence[bool], kept: Sequence[bool]) -> list[bool]:
    return [was and keep for was, keep in zip(counted, kept, strict=True)]
