"""Work that says what it costs before it begins, and can be asked without being done."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field

from deltalens.cost.pace import Pace, counting
from deltalens.cost.total import Cost, Prices, duration

_FIRST = 60.0  # seconds before a time is claimed
_MEASURED = 20.0  # seconds of work that a dry run measures, and then the rest of a batch


class _Stopped(BaseException):
    """Ends a dry run where the work would begin."""


@dataclass
class Estimate:
    """What a dry run found: the cost, at least and at most, and seconds at measured rates.

    rate: tokens per second of the last part that was measured, None where none was. sentences: what
    the work would have said.
    """

    least: Cost = field(default_factory=Cost)
    most: Cost = field(default_factory=Cost)
    seconds: float | None = None
    rate: float | None = None
    sentences: list[str] = field(default_factory=list)

    def add(self, other: Estimate) -> None:
        """The other's work is to be done, too."""
        self.least, self.most = self.least + other.least, self.most + other.most
        if other.seconds is not None:
            self.seconds = (self.seconds or 0.0) + other.seconds
        self.rate = other.rate if other.rate is not None else self.rate
        self.sentences += other.sentences

    def words(self) -> str:
        """The measured time as a sentence."""
        if self.seconds is None:
            return "no time was measured"
        rate = "" if self.rate is None else f" at {self.rate:,.0f} tokens/s, measured just now"
        return f"about {duration(self.seconds)}{rate}"


_asked: ContextVar[Estimate | None] = ContextVar("asked", default=None)
_preliminary: ContextVar[bool] = ContextVar("preliminary", default=False)


@dataclass(frozen=True)
class Work:
    """What is about to begin.

    cost, least: at most and at least (None: the same). tokens: those that
    :func:`~deltalens.cost.pace.advance` is told of, and ``later``, as in
    :class:`~deltalens.cost.pace.Pace`. sentence: in other words than the cost's.
    """

    cost: Cost
    tokens: float = 0.0
    later: float = 0.0
    most: bool = False
    least: Cost | None = None
    sentence: str | None = None
    prices: Prices | None = None

    def words(self) -> str:
        """What is said before it begins."""
        return self.sentence or f"To do: {self.cost.words(self.prices)}."


@contextmanager
def dry_run() -> Iterator[Estimate]:
    """Within the context, work stops where it would begin, with nothing written.

    It has then checked what it was given, and measured a rate on about its first batch. Within
    another dry run it is a part of that.
    """
    found, outer = Estimate(), _asked.get()
    before = _asked.set(found)
    try:
        yield found
    except _Stopped:
        pass
    finally:
        _asked.reset(before)
    if outer is not None:
        outer.add(found)


def is_dry() -> bool:
    """Whether nothing may be written."""
    return _asked.get() is not None


@contextmanager
def piece_of_work() -> Iterator[None]:
    """Within the context a part of the work is done; a dry run goes on with the next part."""
    with dry_run() if is_dry() else nullcontext():
        yield


@contextmanager
def preliminary() -> Iterator[None]:
    """Within the context work is done in a dry run, too: what follows depends on it."""
    before = _preliminary.set(True)
    try:
        yield
    finally:
        _preliminary.reset(before)


@contextmanager
def begun(
    log: logging.Logger, work: Work, rehearsal: Callable[[], Iterable[object]] = tuple
) -> Iterator[None]:
    """Say what ``work`` costs; within the context it is done, and after a minute its time is said.

    In a dry run nothing begins: ``rehearsal``'s items, which write nothing, are gone through for a
    while instead.
    """
    asked = _asked.get()
    if asked is None:
        log.info("%s", work.words())
        with counting(Pace(work.tokens, work.later, work.most, _saying(log))):
            yield
        return
    found = Estimate(work.least or work.cost, work.cost, sentences=[work.words()])
    if _preliminary.get():
        started = time.monotonic()
        yield
        found.seconds = time.monotonic() - started
        asked.add(found)
        return
    _measure(found, work, rehearsal)
    asked.add(found)
    raise _Stopped


def _measure(found: Estimate, work: Work, rehearsal: Callable[[], Iterable[object]]) -> None:
    pace = Pace(work.tokens, work.later, work.most, _stop_in_time)
    try:
        with counting(pace):
            for _ in rehearsal():
                pass
    except _Stopped:
        pass
    if pace.done:
        found.rate = pace.rate
        found.seconds = (work.tokens + work.later) / pace.rate
    if pace.done or work.cost.seconds:
        found.seconds = (found.seconds or 0.0) + work.cost.seconds


def _stop_in_time(pace: Pace) -> None:
    if pace.elapsed > _MEASURED:
        raise _Stopped


def _saying(log: logging.Logger) -> Callable[[Pace], None]:
    """Once, after the first minute."""
    said = False

    def tell(pace: Pace) -> None:
        nonlocal said
        if not said and pace.elapsed > _FIRST:
            said = True
            log.info("%s", pace.words())

    return tell
