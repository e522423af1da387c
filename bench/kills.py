"""Kills every command at its operations on files, and fills the disk there.

Writes bench/results/kills.csv and from it the table of docs/reliability.md.
Usage: python bench/kills.py [MOST]: at MOST operations of each command, or at all (hours).
"""

from __future__ import annotations

import csv
import os
import sys
import tempfile
from pathlib import Path

from pages import put

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "kills.csv"
PAGE = HERE.parent / "docs" / "reliability.md"
MARK, END = "<!-- kills -->", "<!-- end of kills -->"
COLUMNS = ("how", "command", "operations", "tried", "other")


def measure(most: int) -> None:
    """A row for each command and way to end, as it is there."""
    sys.path.insert(0, str(HERE.parent / "tests"))
    from helpers.kill_points import every

    with RESULTS.open("w", encoding="utf-8", newline="") as stream:
        rows = csv.writer(stream, lineterminator="\n")
        rows.writerow(COLUMNS)
        for how in ("kill", "full"):
            with tempfile.TemporaryDirectory() as folder:
                for found in every(Path(folder), how, most):
                    rows.writerow([how, *found[:3], len(found.faults)])
                    stream.flush()
                    for point, fault in found.faults.items():
                        print(f"{found.command}: {point}: {fault}", file=sys.stderr)


def table(rows: list[dict[str, str]]) -> str:
    """A line for each command, and what all of them come to."""
    killed, full = (
        {row["command"]: row for row in rows if row["how"] == how} for how in ("kill", "full")
    )
    lines = [
        "| command | operations | killed at | ended otherwise | disk full at | ended otherwise |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in killed.items():
        other = full[name]
        lines.append(
            f"| {name} | {int(row['operations']):,} | {row['tried']} | {row['other']} "
            f"| {other['tried']} | {other['other']} |"
        )
    tried, wrong = (sum(int(row[name]) for row in rows) for name in ("tried", "other"))
    lines += ["", f"Of {tried:,} runs {tried - wrong:,} ended as if nothing had happened."]
    return "\n".join(lines) + "\n"


def main() -> None:
    os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported: forks need a single thread
    measure(int(sys.argv[1]) if sys.argv[1:] else 0)
    with RESULTS.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    put(PAGE, MARK, END, table(rows))


if __name__ == "__main__":
    main()
