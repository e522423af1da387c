"""Writes what docs/proof.md and docs/performance.md say of the files under bench/results."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from demo_seeds import adaptive_sentence, seeds_table
from demo_tables import demo_table
from performance_tables import performance

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "bench" / "results"


def main() -> None:
    """Replace what stands between each page's markers."""
    for page, part, lines in (
        ("performance.md", "performance", performance(RESULTS)),
        ("proof.md", "demo", _demo()),
    ):
        path = ROOT / "docs" / page
        path.write_text(replaced(path, part, lines), encoding="utf-8")


def _demo() -> Iterator[str]:
    yield from demo_table(json.loads((RESULTS / "demo.json").read_text(encoding="utf-8")))
    yield ""
    yield from seeds_table(RESULTS)
    yield adaptive_sentence(RESULTS)


def replaced(page: Path, part: str, lines: Iterable[str]) -> str:
    """The page's text with ``lines`` between the markers of ``part``."""
    start, end = f"<!-- {part}: made by bench/measured_pages.py -->", f"<!-- end of {part} -->"
    head, found, rest = page.read_text(encoding="utf-8").partition(start)
    _, also_found, tail = rest.partition(end)
    if not (found and also_found):
        raise SystemExit(f"{page.name} has no markers for {part}")
    content = "\n".join(lines).rstrip()
    return f"{head}{start}\n{content}\n{end}{tail}"


if __name__ == "__main__":
    main()
