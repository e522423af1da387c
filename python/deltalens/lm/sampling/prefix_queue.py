"""Rows that wait for a slot, their prompts read a batch of distinct prefixes at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple

from deltalens.lm.sampling.job import Job
from deltalens.lm.sampling.prefixes import Prefixes, read_edited, read_prompts
from deltalens.lm.sampling.products import fast_products


class Ready(NamedTuple):
    """Rows to start: row ``rows[i]`` continues prefix ``places[i]`` of ``prefixes``."""

    prefixes: Prefixes
    rows: list[int]
    places: list[int]


class PrefixQueue:
    """The rows of one wave in order; at most ``tokens`` prefix tokens are read at once.

    ``count``: at most so many prefixes at once, at least one. Prefixes are kept until every row
    that continues them has been taken.
    """

    def __init__(self, job: Job, rows: Sequence[int], tokens: int, count: int) -> None:
        self._job, self._tokens, self._count = job, tokens, count
        self._waiting = deque(rows)
        self._ready: deque[tuple[int, int]] = deque()
        self._prefixes: Prefixes | None = None

    def __len__(self) -> int:
        return len(self._waiting) + len(self._ready)

    @property
    def longest(self) -> int:
        """Columns that the prefixes to come need at most; 0 when there are none."""
        if self._ready and self._prefixes is not None:
            return self._prefixes.width
        return len(self._job.prompts[self._waiting[0]]) if self._waiting else 0

    def take(self, count: int) -> Ready:
        """Up to ``count`` rows, those of one batch of prefixes."""
        if not self._ready:
            self._prefixes = None  # freed before the next are made
            self._read()
        assert self._prefixes is not None
        taken = [self._ready.popleft() for _ in range(min(count, len(self._ready)))]
        rows, places = map(list, zip(*taken, strict=True))
        return Ready(self._prefixes, rows, places)

    def _read(self) -> None:
        places = self._next_places()
        rows = list(islice(self._waiting, len(places)))
        firsts = [places.index(place) for place in range(places[-1] + 1)]
        self._prefixes = self._prefixes_of([rows[first] for first in firsts])
        for _ in rows:
            self._waiting.popleft()
        self._ready.extend(zip(rows, places, strict=True))

    def _next_places(self) -> list[int]:
        """For each of the rows whose prefixes fit into a batch, the place of its prefix there."""
        numbers = self._job.prefixes
        width = len(self._job.prompts[self._waiting[0]])
        allowed = max(1, min(self._count, self._tokens // width))
        places: dict[int, int] = {}
        found: list[int] = []
        for row in self._waiting:
            if numbers[row] not in places and len(places) == allowed:
                break
            found.append(places.setdefault(numbers[row], len(places)))
        return found

    def _prefixes_of(self, rows: list[int]) -> Prefixes:
        job, steered = self._job, self._job.steered
        prompts = [job.prompts[row] for row in rows]
        with fast_products(job.model):
            if steered is None or not steered.prompt:
                return read_prompts(job.model, prompts)
            return read_edited(job.model, prompts, steered.site, steered.edits, steered.of(rows))
