"""Writes what docs/proof.md and docs/performance.md say of the files under bench/results."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from demo_seeds import adaptive_sentence, seeds_table
from demo_tables import demo_table
from pages import put
from performance_tables import performance

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "bench" / "results"


def main() -> None:
    """Replace what stands between each page's markers."""
    for page, part, lines in (
        ("performance.md", "performance", performance(RESULTS)),
        ("proof.md", "demo", _demo()),
    ):
        start, end = f"<!-- {part}: made by bench/measured_pages.py -->", f"<!-- end of {part} -->"
        put(ROOT / "docs" / page, start, end, "\n".join(lines))


def _demo() -> Iterator[str]:
    yield from demo_table(json.loads((RESULTS / "demo.json").read_text(encoding="utf-8")))
    yield ""
    yield from seeds_table(RESULTS)
    yield adaptive_sentence(RESULTS)


if __name__ == "__main__":
    main()
