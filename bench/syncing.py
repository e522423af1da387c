"""What it costs that files survive a power failure, and that copies are checked.

Writes bench/results/syncing-<cpu>.csv and from it a table of docs/reliability.md.
Usage: python bench/syncing.py [FOLDER], on whose disk it is measured.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from zlib import crc32

import torch

from deltalens.storage.atomic import write_tensors
from deltalens.storage.line_log import append_rows
from pages import put
from results import Row, replace_rows

PAGE = Path(__file__).parent.parent / "docs" / "reliability.md"
MARK, END = "<!-- syncing -->", "<!-- end of syncing -->"
REPEATS = 15
SIZES = (4 << 10, 1 << 20, 64 << 20)


def seconds(work: Callable[[], object]) -> float:
    work()
    found = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        work()
        found.append(time.perf_counter() - start)
    return statistics.median(found)


def without_sync(work: Callable[[], object]) -> float:
    real = os.fsync
    os.fsync = lambda descriptor: None  # type: ignore[assignment]
    try:
        return seconds(work)
    finally:
        os.fsync = real


def written(name: str, work: Callable[[], object]) -> Row:
    return {"what": name, "seconds": seconds(work), "without": without_sync(work)}


def main() -> None:
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if sys.argv[1:] else None) as name:
        folder = Path(name)
        for size in SIZES:
            tensors = {"rows": torch.zeros(size // 4)}
            rows.append(
                written(f"file of {size:,} bytes", lambda: write_tensors(folder / "file", tensors))  # noqa: B023
            )
        line = {"text": "a" * 500}
        rows.append(written("lines added", lambda: append_rows(folder / "log", [line])))
    content = torch.zeros(256 << 20, dtype=torch.uint8).numpy().data
    rows.append({"what": "checksum of 256 MiB", "seconds": seconds(lambda: crc32(content))})
    rows[-1]["without"] = 0.0
    replace_rows("syncing", rows, "what")
    put(PAGE, MARK, END, table(rows))


def table(rows: list[Row]) -> str:
    lines = ["| | ms | without syncing |", "|---|---|---|"]
    for row in rows:
        spent, without = (1e3 * float(str(row[name])) for name in ("seconds", "without"))
        lines.append(f"| {row['what']} | {spent:.3g} | {f'{without:.3g}' if without else '–'} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
