"""How fast tokens go through a model, and how long what is left will take."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from deltalens.cost.total import duration


@dataclass
class Pace:
    """Counts ``tokens`` that are to go through a model; ``told`` is called as they do.

    later: what comes after them, in tokens that would take as long. most: ``tokens`` are so many
    at most.
    """

    tokens: float
    later: float = 0.0
    most: bool = False
    told: Callable[[Pace], None] = lambda pace: None
    done: int = 0
    skipped: int = 0
    started: float = field(default_factory=lambda: time.monotonic())

    @property
    def elapsed(self) -> float:
        """Seconds so far."""
        return time.monotonic() - self.started

    @property
    def rate(self) -> float:
        """Tokens per second so far."""
        return self.done / max(self.elapsed, 1e-9)

    @property
    def left(self) -> float:
        """Seconds that the rest takes at this rate."""
        return (max(0.0, self.tokens - self.done - self.skipped) + self.later) / self.rate

    def words(self) -> str:
        """As a sentence, once there is a rate."""
        left = f"{'at most ' if self.most else ''}about {duration(self.left)}"
        return f"at {self.rate:,.0f} tokens/s: {left} left"


_counting: ContextVar[Pace | None] = ContextVar("counting", default=None)


@contextmanager
def counting(pace: Pace) -> Iterator[None]:
    """Within the context, what :func:`advance` is told of counts for ``pace``."""
    before = _counting.set(pace)
    try:
        yield
    finally:
        _counting.reset(before)


def advance(tokens: int, *, skipped: int = 0) -> None:
    """``tokens`` have gone through a model; ``skipped`` that might have will not."""
    pace = _counting.get()
    if pace is None:
        return
    pace.done += tokens
    pace.skipped += skipped
    if pace.done:
        pace.told(pace)
