"""Writes the tables in docs/gradients.md from case_study/results and bench/results."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pages import put

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "gradients.md"
RUNS = {
    "direction": ROOT / "case_study" / "results" / "validation",
    "latent": ROOT / "case_study" / "results" / "validation-latents",
}
RELP = ROOT / "bench" / "results" / "relp-smollm2.csv"
GROUPS = {"ranking": "first", "random": "random"}


def main() -> None:
    """Replace what stands between the markers, and copy the figures."""
    for score, run in RUNS.items():
        if not (run / "gradients.json").exists():
            continue
        put_part(score, compared(run))
        shutil.copyfile(run / "gradients.svg", PAGE.with_name(f"gradients-{score}.svg"))
    put_part("relp", conserved())


def put_part(name: str, lines: Iterator[str]) -> None:
    """Into the page's place for it."""
    start, end = f"<!-- {name}: made by bench/gradients_page.py -->", f"<!-- end of {name} -->"
    put(PAGE, start, end, "\n".join(lines))


def compared(run: Path) -> Iterator[str]:
    """What `deltalens ablate --compare-gradients --json` printed, and its table of latents."""
    said = json.loads((run / "gradients.json").read_text(encoding="utf-8"))["gradients"]
    latents = read(run / "gradients.csv")
    counts = {group: sum(row["from"] == group for row in latents) for group in GROUPS}
    yield (
        f"{said[0]['pairs']} pairs, the first {counts['ranking']} latents and {counts['random']} "
        "random ones:\n"
    )
    titles = ("correlation", "of all values", "slope", "same sign", "error", "closer")
    yield f"| gradients | latents | {' | '.join(titles)} |"
    yield "|---|---|--:|--:|--:|--:|--:|--:|"
    for row in said:
        if row["of"] in GROUPS:
            yield f"| {' | '.join(cells(row, latents))} |"


def cells(row: dict[str, Any], latents: list[dict[str, str]]) -> list[str]:
    """Of one kind and group of latents."""
    kind, group = row["gradients"], [each for each in latents if each["from"] == row["of"]]
    exact, found, plain = (
        [float(each[name]) for each in group] for name in ("exact", kind, "plain")
    )
    off, off_plain = (
        [abs(x - y) for x, y in zip(values, exact, strict=True)] for values in (found, plain)
    )
    closer = sum(x < y for x, y in zip(off, off_plain, strict=True))
    return [
        f"`{kind}`",
        GROUPS[row["of"]],
        f"{row['correlation']:.3f}",
        f"{row['correlation_entries']:.3f}",
        f"{row['slope']:.2f}",
        f"{row['sign_agreement']:.0%}",
        f"{norm(off) / norm(exact):.2f}",
        "" if kind == "plain" else f"{closer} of {len(group)}",
    ]


def norm(values: list[float]) -> float:
    return sum(value * value for value in values) ** 0.5


def conserved() -> Iterator[str]:
    """The logit and what it is at some blocks."""
    rows = read(RELP)
    first, last = rows[0], rows[-1]
    kinds = ("relp-fixed-attention", "relp", "plain")
    yield (
        f"{first['model']}, {len(rows)} blocks, {first['tokens']} tokens, logit "
        f"{float(first['logit']):.5f}; with fixed patterns the largest difference at any block is "
        f"{max(abs(float(row[kinds[0]]) - float(row['logit'])) for row in rows):.1e}.\n"
    )
    yield "| block | " + " | ".join(f"`{kind}`" for kind in kinds) + " |"
    yield "|--:|--:|--:|--:|"
    for row in (first, rows[len(rows) // 2], last):
        yield (
            f"| {row['block']} | " + " | ".join(f"{float(row[kind]):.5f}" for kind in kinds) + " |"
        )


def read(path: Path) -> list[dict[str, str]]:
    """A CSV file's rows."""
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


if __name__ == "__main__":
    main()
