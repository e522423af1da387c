"""Every command twice in one directory: the second begins while the first is at an operation on
files.

Usage: ``python -m helpers.races FOLDER PLACES [COMMAND …]``: at so many operations of each command,
evenly spread. Prints a line for each command and for each place where the second was neither
turned away nor without effect.
"""

from __future__ import annotations

import os
import shutil
import sys
from functools import partial
from pathlib import Path

from helpers.kill_points import ignore, in_a_child, make_ready, run
from helpers.writers import WRITERS, begin, content


def raced(folder: Path, name: str, places: int) -> tuple[int, int, dict[int, str]]:
    """At how many operations it was tried, at how many of those the second was turned away, and
    what went wrong."""
    whole = folder / "of-whole"
    begin(folder, name, whole)
    code, names = in_a_child(lambda: run(name, whole, ignore))
    assert code == 0, names
    expected, faults, refused = content(whole), {}, 0
    points = sorted({len(names) * n // places for n in range(places)})
    for point in points:
        out = folder / "of-two"
        begin(folder, name, out)
        code, said = in_a_child(partial(_both, point, name, out))
        turned = said if code == 0 else ""
        refused += " is writing to " in turned
        if code or (turned and not _is_refusal(turned)):
            faults[point] = said
        elif content(out) != expected:
            faults[point] = f"other files; the second: {turned or 'went through'}"
        shutil.rmtree(out)
    shutil.rmtree(whole)
    return len(points), refused, faults


def _both(point: int, name: str, out: Path) -> str:
    """What the second process said, empty where it went through."""
    second = _Second(name, out)

    def act(number: int, *_: object) -> None:
        if number == point:
            second.go()

    run(name, out, act)
    return second.said


class _Second:
    """A process that does the same once it may; forked before the first holds any lock, for a fork
    would hold it too."""

    def __init__(self, name: str, out: Path) -> None:
        self.said = ""
        may, self._may = os.pipe()
        self._ends, ends = os.pipe()
        if os.fork():
            os.close(may)
            os.close(ends)
            return
        os.read(may, 1)
        said = ""
        try:
            WRITERS[name](out)
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        os.write(ends, said.encode()[:4096])
        os._exit(0)

    def go(self) -> None:
        """Let it run to its end."""
        os.write(self._may, b"x")
        with os.fdopen(self._ends, "rb") as ends:
            self.said = ends.read().decode()


def _is_refusal(said: str) -> bool:
    return said.startswith("InputError: ") and "\n" not in said


def main(folder: Path, places: int, names: list[str]) -> None:
    make_ready(folder)
    for name in names or WRITERS:
        points, refused, faults = raced(folder, name, places)
        print(name, points, refused, len(faults), sep="\t", flush=True)
        for point, fault in faults.items():
            print(f"  {point}: {fault}", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
