"""The GPU that is measured, its roofs, and how to time work on it.

With TRITON_INTERPRET=1 everything runs on the CPU in sizes that show only that it runs.
"""

from __future__ import annotations

import csv
import functools
import os
import re
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import triton

from machine import describe

SMOKE = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = torch.device("cpu" if SMOKE else "cuda")
RESULTS = Path(__file__).parent / "results"

Row = dict[str, object]
Work = Callable[[], object]


@functools.cache
def conditions() -> dict[str, str]:
    """Device, versions and commit of a result."""
    found = {"device": "interpreter" if SMOKE else torch.cuda.get_device_name()}
    found |= {"triton": triton.__version__}
    machine = describe()
    return found | {name: machine[name] for name in ("torch", "deltalens", "commit")}


def write_results(name: str, rows: list[Row]) -> None:
    """bench/results/<device>-<name>.csv; nothing in a smoke run."""
    if SMOKE or not rows:
        return
    where = conditions()
    slug = re.sub(r"[^a-z0-9]+", "-", where["device"].lower()).strip("-")
    columns = list(dict.fromkeys(column for row in rows for column in row)) + list(where)
    with (RESULTS / f"{slug}-{name}.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows({**row, **where} for row in rows)


def seconds(work: Work) -> float:
    """Device time of one call."""
    if SMOKE:
        start = time.perf_counter()
        work()
        return time.perf_counter() - start
    start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    work()
    stop.record()
    stop.synchronize()
    return start.elapsed_time(stop) / 1e3


def medians(contenders: dict[str, Work], rounds: int = 7) -> dict[str, float]:
    """Median seconds of each, measured in turns so that all see the same clocks."""
    rounds = 1 if SMOKE else rounds
    for work in contenders.values():
        seconds(work)
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, work in contenders.items():
            times[name].append(seconds(work))
    return {name: statistics.median(values) for name, values in times.items()}


def peak_bytes(work: Work) -> int:
    """Device memory that ``work`` took beyond what was there."""
    if SMOKE:
        return 0
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    work()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def roofs() -> dict[str, float]:
    """FLOP/s of bf16 and fp32 products on random data, bytes/s of a copy (read plus written)."""
    size = 128 if SMOKE else 8192
    half = [torch.randn(size, size, device=DEVICE, dtype=torch.bfloat16) for _ in range(2)]
    full = [torch.randn(size // 2, size // 2, device=DEVICE) for _ in range(2)]
    source = torch.randn(1 << (16 if SMOKE else 29), device=DEVICE)
    target = torch.empty_like(source)
    times = medians(
        {
            "bf16": lambda: half[0] @ half[1],
            "fp32": lambda: full[0] @ full[1],
            "copy": lambda: target.copy_(source),
        },
        rounds=11,
    )
    return {
        "bf16": 2 * size**3 / times["bf16"],
        "fp32": 2 * (size // 2) ** 3 / times["fp32"],
        "bandwidth": 2 * source.nbytes / times["copy"],
    }


def show(title: str, rows: list[Row]) -> None:
    """Print rows as an aligned table."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    cells = [columns, *([str(row.get(column, "")) for column in columns] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    print(f"\n{title}")
    for line in cells:
        print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))
