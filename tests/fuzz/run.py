"""Many inputs for every reader: counts go into a CSV file, from which a cut run continues.

``python tests/fuzz/run.py --tensors 1000000 --others 10000`` goes on until that many inputs have
been tried of each file. What fails is kept beside the CSV file, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import csv
import random
import resource
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from fuzz.replies import SAYINGS
from fuzz.targets import FAMILIES, Outcome, Target

COLUMNS = ("family", "input", "tried", "read", "alone", "refused", "failed", "seconds", "peak_mb")
STEP = 1000
SLOW = 10.0  # seconds for one input: a failure
Counts = dict[str, str]
Try = Callable[[random.Random], Outcome]


def main() -> int:
    """Try inputs until there are enough of each; returns how many failed, at most 1."""
    args = _arguments()
    rows = _read(args.out)
    with tempfile.TemporaryDirectory(prefix="deltalens-fuzz-", dir=args.place) as place:
        for family, name, outcome, target in _inputs(Path(place), args.only):
            wanted = args.tensors if family == "tensors" else args.others
            row = rows.setdefault(f"{family} {name}", _empty(family, name))
            while int(row["tried"]) < wanted:
                _step(row, outcome, target, wanted, args.out)
                _write(args.out, rows)
            print(" ".join(row.values()), flush=True)
    return int(any(int(row["failed"]) for row in rows.values()))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tensors", type=int, default=1_000_000)
    parser.add_argument("--others", type=int, default=10_000)
    parser.add_argument("--only", default="", help="families or inputs with this in their name")
    parser.add_argument("--out", type=Path, default=Path("bench/results/fuzz.csv"))
    parser.add_argument("--place", default="/dev/shm" if Path("/dev/shm").is_dir() else None)
    return parser.parse_args()


def _inputs(place: Path, only: str) -> Iterator[tuple[str, str, Try, Target | None]]:
    for family, make in FAMILIES.items():
        for target in make(place / family):
            if only in f"{family} {target.name}":
                yield family, target.name, target.outcome, target
    for saying in SAYINGS:
        if only in f"replies {saying.name}":
            yield "replies", saying.name, saying.outcome, None


def _step(
    row: Counts,
    outcome: Try,
    target: Target | None,
    wanted: int,
    out: Path,
) -> None:
    """Up to :data:`STEP` inputs more; each is made by a number of its own."""
    start, first = time.monotonic(), int(row["tried"])
    counts = dict.fromkeys(("read", "alone", "refused", "failed"), 0)
    numbers = range(first, min(first + STEP, wanted))
    for number in numbers:
        began = time.monotonic()
        try:
            kind: str = outcome(random.Random(f"{row['input']} {number}"))
            assert time.monotonic() - began < SLOW, "took too long"
        except Exception:  # of any kind: that is what is looked for
            kind = "failed"
            _keep(out, row["input"], number, target)
        counts[kind] += 1
    if target is not None:
        target.mend()
    for kind, count in counts.items():
        row[kind] = str(int(row[kind]) + count)
    row["tried"] = str(first + len(numbers))
    row["seconds"] = f"{float(row['seconds']) + time.monotonic() - start:.1f}"
    row["peak_mb"] = str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)


def _keep(out: Path, name: str, number: int, target: Target | None) -> None:
    kept = out.with_suffix(".failures") / name.replace("/", "_").replace(" ", "_")
    kept.mkdir(parents=True, exist_ok=True)
    (kept / f"{number}.txt").write_text(traceback.format_exc(), errors="backslashreplace")
    if target is not None:
        (kept / f"{number}{target.file.suffix}").write_bytes(target.file.read_bytes())


def _empty(family: str, name: str) -> Counts:
    return {**dict.fromkeys(COLUMNS, "0"), "family": family, "input": name}


def _read(path: Path) -> dict[str, Counts]:
    if not path.exists():
        return {}
    with path.open(newline="") as stream:
        return {f"{row['family']} {row['input']}": row for row in csv.DictReader(stream)}


def _write(path: Path, rows: dict[str, Counts]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".tmp")
    with unfinished.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows.values())
    unfinished.replace(path)


if __name__ == "__main__":
    sys.exit(main())
