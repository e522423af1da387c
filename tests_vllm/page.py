"""Writes the record in docs/vllm.md from bench/results/vllm.json: python tests_vllm/page.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench" / "results" / "vllm.json"
PAGE = ROOT / "docs" / "vllm.md"
BEGIN, END = "<!-- record: made by tests_vllm/page.py -->", "<!-- end of record -->"
COLUMNS = ("what", "model", "how", "compared", "result")


def record(found: dict[str, Any]) -> str:
    """Versions and one line a comparison."""
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    rows = [f"| {' | '.join(row[name] for name in COLUMNS)} |" for row in found["rows"]]
    head = [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
    return "\n".join([f"With {versions}:", "", *head, *rows])


def main() -> None:
    """Put the record of the last run between its marks."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    found = json.loads(RESULTS.read_text(encoding="utf-8"))
    PAGE.write_text(f"{before}{BEGIN}\n\n{record(found)}\n\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
