"""Answers of many asynchronous calls, as they come, to code that is not asynchronous."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from queue import SimpleQueue
from threading import Thread
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

Session = Callable[[], AbstractAsyncContextManager[Callable[[Item], Awaitable[Result]]]]


def stream(
    session: Session[Item, Result], items: Sequence[Item], *, at_once: int
) -> Iterator[tuple[int, Result]]:
    """(position, result) of calling what ``session`` opens on every item, in any order.

    At most ``at_once`` calls are under way. They run in an event loop on a thread of its own, so
    the caller may have one running. After an exception no call is begun; those under way end,
    their results are yielded, and then it is raised. Closing the iterator cancels what runs.
    """
    job = _Job(session, items, at_once)
    loop = asyncio.new_event_loop()
    task = loop.create_task(job.run())
    thread = Thread(target=_drive, args=(loop, task, job.results), daemon=True)
    thread.start()
    try:
        while (found := job.results.get()) is not None:
            yield found
    finally:
        with suppress(RuntimeError):  # the loop has ended and is closed
            loop.call_soon_threadsafe(task.cancel)
        thread.join()
    if job.failures:
        raise job.failures[0]


def _drive(loop: asyncio.AbstractEventLoop, task: asyncio.Task[None], results: Any) -> None:
    try:
        with suppress(asyncio.CancelledError):
            loop.run_until_complete(task)
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()
        results.put(None)


class _Job(Generic[Item, Result]):
    def __init__(self, session: Session[Item, Result], items: Sequence[Item], at_once: int) -> None:
        self.results: SimpleQueue[tuple[int, Result] | None] = SimpleQueue()
        self.failures: list[Exception] = []
        self._session = session
        self._waiting = iter(enumerate(items))
        self._workers = min(at_once, len(items))

    async def run(self) -> None:
        try:
            async with self._session() as call:
                await asyncio.gather(*(self._work(call) for _ in range(self._workers)))
        except Exception as error:
            self.failures.append(error)

    async def _work(self, call: Callable[[Item], Awaitable[Result]]) -> None:
        for number, item in self._waiting:
            try:
                self.results.put((number, await call(item)))
            except Exception as error:
                self.failures.append(error)
            if self.failures:
                return
