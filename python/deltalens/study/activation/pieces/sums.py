"""Pieces of texts dealt out, and what was found of all of them added up in their order."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

from deltalens.errors import InputError
from deltalens.lm.progress import Progress
from deltalens.ranks.ranks import Ranks
from deltalens.study.activation.pieces.cut import Piece
from deltalens.study.activation.pieces.store import (
    Found,
    Medians,
    PieceRoom,
    PieceStore,
    SiteSums,
    added,
)


class Tally(Protocol):
    """Adds up what a piece's rows have at one site."""

    def put(self, number: int, rows: Any) -> None:
        """What was read of row ``number`` of the piece, in order from 0 on."""

    def result(self) -> SiteSums:
        """Of the whole piece."""


@dataclass(frozen=True)
class Summing:
    """Sums at some sites over all pieces.

    pieces: makes them anew with every call. read: of a piece (row, what is there at each site), in
    order. tallies: for each site what makes its tally of a piece, from the piece and the site's
    medians, None for the first piece, which finds them.
    """

    pieces: Callable[[], Iterable[Piece]]
    read: Callable[[Piece], Iterator[tuple[int, Sequence[Any]]]]
    tallies: Sequence[Callable[[Piece, Medians | None], Tally]]
    room: PieceRoom
    ranks: Ranks

    def parts(self) -> Iterator[tuple[int, bool]]:
        """Of every piece its tokens, and whether this process is still to read it."""
        return ((piece.tokens, mine) for piece, mine in self._dealt())

    def rehearsed(self) -> Iterator[object]:
        """Read what is still to be read, and keep nothing."""
        for piece, mine in self._dealt():
            if mine:
                yield from self.read(piece)

    def over(self, pieces: Iterable[Piece], store: PieceStore, *, progress: bool) -> Found | None:
        """The sums over ``pieces``, the same to the bit for any number of processes; None where
        there is no piece.

        The first process does the first piece, and the others wait for its medians. What the store
        holds is not done again. Raises :class:`InputError` where the processes do not have the
        same pieces.
        """
        stream = iter(pieces)
        first = list(islice(stream, 1))
        digests = [piece.digest for piece in first]
        with Progress(progress, "sequences", None) as bar:
            self.ranks.from_first(lambda: self._do(first, None, store, bar))
            medians = [site.medians for one in first for site in store.get(0, one.digest)]
            for piece in stream:
                digests.append(piece.digest)
                if self.ranks.takes(piece.number):
                    self._do([piece], medians, store, bar)
        self._check_same(digests)
        return added(store.get(number, digest) for number, digest in enumerate(digests))

    def _dealt(self) -> Iterator[tuple[Piece, bool]]:
        store = self.room.store
        for piece in self.pieces():
            mine = self.ranks.takes(piece.number)
            yield piece, mine and not (store is not None and store.holds(piece))

    def _do(
        self,
        pieces: Iterable[Piece],
        medians: list[Medians] | None,
        store: PieceStore,
        bar: Progress,
    ) -> None:
        for piece in pieces:
            if store.holds(piece):
                continue
            tallies = [
                make(piece, None if medians is None else medians[site])
                for site, make in enumerate(self.tallies)
            ]
            for number, rows in self.read(piece):
                for tally, of_site in zip(tallies, rows, strict=True):
                    tally.put(number, of_site)
                bar.advance()
            store.put(piece, [tally.result() for tally in tallies])

    def _check_same(self, digests: list[str]) -> None:
        """Waits for all processes."""
        own = hashlib.sha256(" ".join(digests).encode()).hexdigest()
        if self.ranks.gather(own)[0] != own:
            raise InputError(
                f"process {self.ranks.rank} has read other texts than the first; start all of them "
                "with the same command and the same files"
            )
