"""Processes that ``torchrun`` has started."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import ReferenceType

from deltalens.errors import InputError, Unfinished
from deltalens.ranks.ranks import ALONE, Ranks

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

T = TypeVar("T")

_PATIENCE = timedelta(days=30)  # one process may have hours more to do than another


@dataclass(frozen=True)
class Processes(Ranks):
    """The processes of one of torch's groups, which exchange small objects in host memory.

    Whatever is large they exchange in files. An :class:`InputError` says when another has ended.
    """

    group: ReferenceType[ProcessGroup] = field(kw_only=True)

    @property
    def part(self) -> int:
        return self.rank

    def share(self, pieces: Sequence[T], done: Callable[[T], bool]) -> list[T]:
        """Every ``size``-th of those that the first process has found not to be done."""
        return self.from_first(lambda: super(Processes, self).share(pieces, done))[
            self.rank :: self.size
        ]

    def span(self, pieces: int) -> range:
        return range(pieces * self.rank // self.size, pieces * (self.rank + 1) // self.size)

    def gather(self, value: T) -> list[T]:
        from torch import distributed

        found: list[Any] = [None] * self.size
        try:
            distributed.all_gather_object(found, value, group=self.group())
        except RuntimeError as error:
            raise _lost(error) from error
        return found

    def from_first(self, work: Callable[[], T]) -> T:
        from torch import distributed

        told: list[Any] = [None, None, None]
        if self.first:
            try:
                told[0] = work()
            except InputError as error:
                told[1:] = str(error), isinstance(error, Unfinished)
        try:
            distributed.broadcast_object_list(told, src=0, group=self.group())
        except RuntimeError as error:
            raise _lost(error) from error
        if told[1] is not None:
            raise (Unfinished if told[2] else InputError)(told[1])
        return told[0]


@contextmanager
def joined() -> Iterator[Ranks]:
    """The processes among which this one was started, as the environment says; or itself alone."""
    size = _number("WORLD_SIZE", 1)
    if size == 1:
        yield ALONE
        return
    from torch import distributed

    # On CPUs and GPUs alike: what is exchanged is small, lies in host memory, and is added up by
    # the processes themselves, in an order that a reduction over a network would not keep.
    # They do so in a group of their own. Torch's default one may outlive this, threads and all, for
    # torch.distributed.nn keeps it where it is imported meanwhile (loading a model does); and a
    # thread that lets go of a tensor while the interpreter ends aborts the process.
    try:
        distributed.init_process_group("gloo", timeout=_PATIENCE)
        group = distributed.new_group(backend="gloo", timeout=_PATIENCE)
    except (ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0][:80]
        raise InputError(
            f"WORLD_SIZE is {size}, but the processes cannot meet ({reason}); start them with "
            "torchrun"
        ) from error
    try:
        yield Processes(_number("RANK", 0), size, group=ReferenceType(group))
    finally:
        del group
        distributed.destroy_process_group()


def local_rank() -> int:
    """This process's number on its machine, which is the number of its GPU there."""
    return _number("LOCAL_RANK", 0)


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, str(default))
    if not text.isdigit():
        raise InputError(f"the environment's {name} is {text!r}; start processes with torchrun")
    return int(text)


def _lost(error: RuntimeError) -> InputError:
    return InputError(
        f"another process has ended ({str(error).splitlines()[0][:80]}); what is finished is kept: "
        "run the same command again"
    )
