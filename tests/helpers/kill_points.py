"""Ends every command at every operation on files, or lets the disk be full from there on; then runs
it again. Prints a line for each that did not end as if nothing had happened.

Usage: ``python -m helpers.kill_points FOLDER kill|full MOST [COMMAND …]``: at MOST operations of
each command, or at all of them for 0.
All runs are forks of one process that has imported everything and runs no threads.
"""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from deltalens.errors import InputError
from helpers.file_operations import NEEDS_ROOM, Operations, full_from, kill_at
from helpers.writers import WRITERS, begin, content, make_small, prepare


class Tried(NamedTuple):
    """How many operations there were, at how many it was tried, and what went wrong at which."""

    command: str
    operations: int
    points: int
    faults: dict[str, str]


def in_a_child(work: Callable[[], object]) -> tuple[int, Any]:
    """How a fork ended that did ``work``, negative a signal, and what it gave."""
    assert len(os.listdir("/proc/self/task")) == 1
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        code = 0
        try:
            answer: Any = work()
        except BaseException:
            code, answer = 1, traceback.format_exc()
        with os.fdopen(writing, "wb") as pipe:
            pickle.dump(answer, pipe)
        os._exit(code)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return code, pickle.loads(said) if said else None


def run(name: str, out: Path, act: Any) -> list[str]:
    operations = Operations(out, act)
    operations.watch()
    try:
        WRITERS[name](out)
    except InputError as error:
        if "\n" in str(error):
            raise
        operations.names.append(f"refused: {error}")
    return operations.names


def ignore(*_: object) -> None:
    pass


def tried(folder: Path, name: str, how: str, most: int) -> Tried:
    """Of the command ``name``."""
    whole = folder / "of-whole"
    begin(folder, name, whole)
    code, names = in_a_child(lambda: run(name, whole, ignore))
    assert code == 0, names
    assert not names[-1].startswith("refused"), names
    expected, faults = content(whole), {}
    points = [
        n
        for n, operation in enumerate(names)
        if how == "kill" or operation in NEEDS_ROOM  # others need no room
    ]
    if 0 < most < len(points):
        points = [points[len(points) * n // most] for n in range(most)]
    for point in points:
        out = folder / "of-cut"
        begin(folder, name, out)
        fault = _fault(name, how, point, out, expected)
        if fault is not None:
            faults[f"{point} {names[point]}"] = fault
        shutil.rmtree(out)
    shutil.rmtree(whole)
    return Tried(name, len(names), len(points), faults)


def _fault(name: str, how: str, point: int, out: Path, expected: dict[str, Any]) -> str | None:
    act = (kill_at if how == "kill" else full_from)(point)
    code, said = in_a_child(lambda: run(name, out, act))
    if how == "kill" and code != -signal.SIGKILL:
        return f"was not killed: {said}"
    if how == "full" and code != 0:
        return f"full: {said}"
    left = _temporaries(out)
    if how == "full" and left:
        return f"left {left}"
    code, said = in_a_child(lambda: run(name, out, ignore))
    if code or "".join(said[-1:]).startswith("refused"):
        return f"again: {said if code else said[-1]}"
    found = content(out)
    if found != expected:
        differing = [key for key in {*found, *expected} if found.get(key) != expected.get(key)]
        return f"differs in {sorted(differing)}"
    return None


def _temporaries(out: Path) -> list[str]:
    return [path.name for path in out.rglob("*.tmp")]


def make_ready(folder: Path) -> None:
    """What all commands read is in ``folder`` then; this process has run no threads."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    make_small()
    code, said = in_a_child(lambda: prepare(folder))  # where threads may be started
    assert code == 0, said


def every(folder: Path, how: str, most: int, names: Sequence[str] = ()) -> Iterator[Tried]:
    """Of each command; of all without names."""
    make_ready(folder)
    for name in names or WRITERS:
        yield tried(folder, name, how, most)


def main(folder: Path, how: str, most: int, names: list[str]) -> None:
    for found in every(folder, how, most, names):
        print(*found[:3], len(found.faults), sep="\t", flush=True)
        for point, fault in found.faults.items():
            print(f"  {found.command}: {point}: {fault}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4:])
