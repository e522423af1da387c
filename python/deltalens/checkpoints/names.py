"""What checkpoints are called, and the steps that their names tell."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path

from deltalens.errors import InputError, quoted

_NUMBER = re.compile(r"\d+(?:\.\d+)?")


def checkpoint_names(runs: Sequence[Path], given: Sequence[str] | None) -> list[str]:
    """A name for each run: as ``given``, or by the directories' own.

    Raises :class:`InputError` for too few or too many names, and for two runs or two names that are
    the same.
    """
    places = [run.resolve() for run in runs]
    again = next((run for at, run in enumerate(runs) if places[at] in places[:at]), None)
    if again is not None:
        raise InputError(f"{again} is given twice; give each run once")
    names = _by_directories(runs) if given is None else list(given)
    if len(names) != len(runs):
        raise InputError(f"{len(names)} names for {len(runs)} runs; give one for each")
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"two checkpoints are called {quoted(twice)}; give each a name of its own")
    return names


def _by_directories(runs: Sequence[Path]) -> list[str]:
    """The last part of each path, or where these are no names the parts that differ."""
    parts = [run.absolute().parts for run in runs]
    last = [part[-1] for part in parts]
    if len(set(last)) == len(last):
        return last
    ahead = _in_common(parts)
    behind = _in_common([part[ahead:][::-1] for part in parts])
    differing = ["/".join(part[ahead : len(part) - behind]) for part in parts]
    return differing if all(differing) else list(map(str, runs))


def _in_common(parts: Sequence[Sequence[str]]) -> int:
    """How many of the first elements are the same in all."""
    same = 0
    for column in zip(*parts, strict=False):
        if len(set(column)) > 1:
            break
        same += 1
    return same


def steps_of(names: Sequence[str]) -> list[float] | None:
    """The number in each name, where names differ in one number and nothing else."""
    words = [_NUMBER.split(name) for name in names]
    if any(word != words[0] for word in words):
        return None
    columns = zip(*(map(float, _NUMBER.findall(name)) for name in names), strict=True)
    differing = [column for column in columns if len(set(column)) > 1]
    if len(differing) != 1 or len(set(differing[0])) < len(names):
        return None
    return list(differing[0]) if all(map(math.isfinite, differing[0])) else None


def disorder(names: Sequence[str]) -> list[str]:
    """A line where checkpoints are not in the order of their steps, as a shell may name them."""
    steps = steps_of(names)
    if steps is None or steps == sorted(steps):
        return []
    return [f"the checkpoints are not in the order of their steps: {', '.join(names)}"]
