"""Token sequences in pieces, which do not depend on how many processes there are."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple

import numpy as np

from deltalens.lm.sinks import MEASURED_TOKENS

ROWS = 256  # of a piece: as many as are sorted by length together, so that batches stay full


class Row(NamedTuple):
    """A sequence's token ids, and the number of its first token that counts."""

    ids: list[int]
    first: int


class Piece(NamedTuple):
    """Rows one after the other; the first of them is row ``start`` of all."""

    number: int
    start: int
    rows: list[Row]

    @property
    def sequences(self) -> list[list[int]]:
        """The rows' token ids."""
        return [row.ids for row in self.rows]

    @property
    def tokens(self) -> int:
        """Of all rows."""
        return sum(len(row.ids) for row in self.rows)

    @property
    def digest(self) -> str:
        """Hash of the rows and of their place."""
        digest = hashlib.sha256(str(self.start).encode())
        for ids, first in self.rows:
            digest.update(np.asarray([len(ids), first, *ids], dtype="<i8").tobytes())
        return digest.hexdigest()[:32]


def pieces(rows: Iterable[Row], together: int = 1) -> Iterator[Piece]:
    """All rows, ``together`` of which are never parted; ``together`` divides :data:`ROWS`.

    The first piece is those by which sinks are told, with :data:`MEASURED_TOKENS` tokens; the
    others have :data:`ROWS` rows each.
    """
    stream, number, start = iter(rows), 0, 0
    found = _measured(stream, together)
    while found:
        yield Piece(number, start, found)
        number, start = number + 1, start + len(found)
        found = list(islice(stream, ROWS))


def _measured(stream: Iterator[Row], together: int) -> list[Row]:
    found: list[Row] = []
    tokens = 0
    while tokens < MEASURED_TOKENS and (group := list(islice(stream, together))):
        found += group
        tokens += sum(len(row.ids) for row in group)
    return found
