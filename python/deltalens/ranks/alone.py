"""Work on a place in which no other process works, but those that share it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from deltalens.cost.dry_run import is_dry
from deltalens.ranks.ranks import Ranks
from deltalens.storage.lock import locked


@contextmanager
def alone(lock: Path, ranks: Ranks) -> Iterator[None]:
    """``lock`` is held meanwhile: for processes that meet by the first of them, by a job of an
    array for its own part. A dry run writes nothing and is in nobody's way.

    Raises :class:`~deltalens.errors.InputError`, in all of them, where another process holds it.
    """
    if is_dry():
        yield
        return
    part = None if ranks.size > 1 else ranks.part
    with ExitStack() as stack:
        ranks.from_first(lambda: stack.enter_context(locked(lock, part)))
        yield
