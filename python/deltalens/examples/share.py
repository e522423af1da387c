"""Which of a corpus's blocks a process is to collect, where others are at it or were before."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from deltalens.examples.contexts import Block, Contexts, Place
from deltalens.ranks.ranks import Ranks


@dataclass(frozen=True)
class Share:
    """Of the blocks from ``start`` on, those that are not ``done`` and are for this process."""

    contexts: Contexts
    start: Place
    done: frozenset[int]
    ranks: Ranks

    def blocks(self) -> Iterator[tuple[Block, bool]]:
        """Every block, and whether it is to be collected."""
        for block in self.contexts.blocks(self.start):
            yield block, self.ranks.takes(block.number) and block.number not in self.done

    def parts(self) -> Iterator[tuple[int, bool]]:
        """Of every block the tokens that a model reads, and whether it is to be collected."""
        for block, mine in self.blocks():
            yield sum(len(one.head) + len(one.body) for one in block.contexts), mine
