"""One job of an array, which never meets the others: their work is put together afterwards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from deltalens.errors import InputError
from deltalens.ranks.ranks import Ranks

T = TypeVar("T")


class ShardDone(Exception):
    """Everything that a job of an array can do by itself is done and on disk."""


@dataclass(frozen=True)
class Shard(Ranks):
    """Job ``number`` of ``of``, from 0 on; raises :class:`ShardDone` where it would have to meet
    the others."""

    number: int = 0
    of: int = 1

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Of a text such as ``0/4``; :class:`InputError` for any other."""
        number, slash, of = text.partition("/")
        if not slash or not (number.isdigit() and of.isdigit()) or int(number) >= int(of):
            raise InputError(f"a shard is 0/N … N-1/N, such as 0/4; got {text!r}")
        return cls(number=int(number), of=int(of))

    @property
    def parts(self) -> int:
        return self.of

    @property
    def part(self) -> int:
        return self.number

    def share(self, pieces: Sequence[T], done: Callable[[T], bool]) -> list[T]:
        """Every ``of``-th piece, whatever the others have done by now."""
        return [piece for piece in pieces[self.number :: self.of] if not done(piece)]

    def alone_first(self, work: Callable[[], None]) -> None:
        pass

    def gather(self, value: T) -> list[T]:
        raise ShardDone(f"shard {self.number}/{self.of} is done")
