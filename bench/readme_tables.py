"""Writes README's generated parts from the files that commands wrote under bench/results."""

from __future__ import annotations

import json
from pathlib import Path

from demo_seeds import adaptive_sentence, seeds_table
from readme_demo import demo_table
from readme_performance import performance

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "bench" / "results"


def main() -> None:
    """Replace what stands between each pair of markers."""
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    text = _replace(text, "performance", "\n".join(performance(RESULTS)).rstrip())
    demo = json.loads((RESULTS / "demo.json").read_text(encoding="utf-8"))
    seeds = [*seeds_table(RESULTS), adaptive_sentence(RESULTS)]
    text = _replace(text, "demo", "\n".join([*demo_table(demo), "", *seeds]).rstrip())
    readme.write_text(text, encoding="utf-8")


def _replace(text: str, part: str, content: str) -> str:
    start, end = f"<!-- {part}: made by bench/readme_tables.py -->", f"<!-- end of {part} -->"
    head, found, rest = text.partition(start)
    _, also_found, tail = rest.partition(end)
    if not (found and also_found):
        raise SystemExit(f"README.md has no markers for {part}")
    return f"{head}{start}\n{content}\n{end}{tail}"


if __name__ == "__main__":
    main()
