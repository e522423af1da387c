"""Writes README's performance table from bench/results/attribution-*.csv."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
START, END = "<!-- performance: made by bench/readme_tables.py -->", "<!-- end of performance -->"
HEADER = (
    "| tokens | latents | form | impl | naive PyTorch | ours | speed-up | "
    "peak memory, naive → ours |\n|--:|--:|---|---|--:|--:|--:|--:|"
)


def main() -> None:
    """Replace what stands between the two markers."""
    readme = ROOT / "README.md"
    head, _, rest = readme.read_text(encoding="utf-8").partition(START)
    _, _, tail = rest.partition(END)
    files = sorted((ROOT / "bench" / "results").glob("attribution-*.csv"))
    tables = "\n\n".join("\n".join(_table(path)) for path in files)
    readme.write_text(f"{head}{START}\n{tables}\n{END}{tail}", encoding="utf-8")


def _table(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    first = rows[0]
    yield (
        f"{first['cpu']}, {first['threads']} threads, torch {first['torch']}, "
        f"d_model {first['d_model']}, fp32, top 100:\n"
    )
    yield HEADER
    for row in rows:
        yield (
            f"| {int(row['tokens']):,} | {int(row['n_latents']):,} | {row['form']} | {row['impl']} "
            f"| {float(row['naive_seconds']):.2f} s | {float(row['seconds']):.2f} s "
            f"| {float(row['speedup']):.1f}× "
            f"| {int(row['naive_peak_mib']):,} → {int(row['peak_mib']):,} MiB |"
        )


if __name__ == "__main__":
    main()
