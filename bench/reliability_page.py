"""Writes the counts in docs/reliability.md from bench/results/fuzz.csv."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from pages import put

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "reliability.md"
COUNTS = ROOT / "bench" / "results" / "fuzz.csv"
START, END = "<!-- counts: made by bench/reliability_page.py -->", "<!-- end of counts -->"
SUMS = ("tried", "read", "alone", "refused", "failed")
FAMILIES = {
    "tensors": "Containers of tensors",
    "saes": "Configurations of SAEs",
    "texts": "Pairs, questions, graded answers, texts",
    "adapters": "Configurations of adapters",
    "configurations": "Configurations of commands",
    "runs": "Files of run directories",
    "checkpoints": "Runs compared as checkpoints",
    "replies": "Replies of judges, printed text",
}


def main() -> None:
    """Replace what stands between the markers."""
    put(PAGE, START, END, "\n".join(_table()))


def _table() -> Iterator[str]:
    with COUNTS.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    yield "| input | tried | right | nothing to compare with | refused | failed |"
    yield "|---|--:|--:|--:|--:|--:|"
    for family, title in FAMILIES.items():
        chosen = [row for row in rows if row["family"] == family]
        if not chosen:
            continue
        yield f"| **{title}** | {_numbers(chosen)} |"
        for row in chosen:
            yield f"| {row['input']} | {_numbers([row])} |"


def _numbers(rows: list[dict[str, str]]) -> str:
    return " | ".join(f"{sum(int(row[name]) for row in rows):,}" for name in SUMS)


if __name__ == "__main__":
    main()
