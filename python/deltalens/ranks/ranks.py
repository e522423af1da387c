"""What one of several processes needs to know; a process by itself is the case of one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """Process ``rank`` of ``size``; this class itself is a process alone."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes results and speaks to people."""
        return self.rank == 0

    @property
    def parts(self) -> int:
        """How many share the work."""
        return self.size

    @property
    def part(self) -> int | None:
        """The number of the part of a log that this process appends to; None for the log itself."""
        return None

    def share(self, pieces: Sequence[T], done: Callable[[T], bool]) -> list[T]:
        """The pieces that are to be done by this process, of those that are not ``done``."""
        return [piece for piece in pieces if not done(piece)]

    def takes(self, number: int) -> bool:
        """Whether piece ``number`` of a stream, whose end is not known, is for this process."""
        return number % self.parts == (self.part or 0)

    def span(self, pieces: int) -> range:
        """This process's consecutive numbers of ``pieces``."""
        return range(pieces)

    def gather(self, value: T) -> list[T]:
        """Every process's ``value``, by rank. All wait for each other."""
        return [value]

    def meet(self) -> None:
        """Wait until all processes are here."""
        self.gather(None)

    def alone_first(self, work: Callable[[], None]) -> None:
        """Let ``work`` be done while nobody else is at it: by the first process, or, where they do
        not meet, not at all."""
        self.from_first(work)

    def from_first(self, work: Callable[[], T]) -> T:
        """What ``work`` gives in the first process, which alone does it, in all of them.

        An :class:`InputError` that it raises is raised in all of them.
        """
        return work()


ALONE = Ranks()
