"""The tables in docs/side-effects.md, from results/*/side_effects.csv."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean, median

from pages import put

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "side-effects.md"
START, END = (
    "<!-- measured: made by case_study/side_effects_page.py -->",
    "<!-- end of measured -->",
)
CASES = {"validation": "Undesired validation", "advice": "Bad advice"}
RISES = 0.1

Row = dict[str, str]


def main() -> None:
    """Replace what stands between the markers."""
    put(PAGE, START, END, "\n".join(_content()))


def _content() -> Iterator[str]:
    for name, title in CASES.items():
        file = HERE / "results" / name / "side_effects.csv"
        if not file.exists():
            continue
        with file.open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))
        for direction in dict.fromkeys(row["direction"] for row in rows):
            chosen = [row for row in rows if row["direction"] == direction]
            yield from _arm(f"{title}, steered {direction}", chosen)


def _arm(title: str, rows: Sequence[Row]) -> Iterator[str]:
    plain, *steered = rows
    yield (
        f"**{title}.** Unsteered: {float(plain['loss']):.3f} nats a token over {plain['texts']} "
        f"texts of {plain['tokens']} predicted tokens in all, answers of "
        f"{float(plain['length']):.1f} tokens, {_share(plain)} cut.\n"
    )
    columns = "set | strength | latents | rise | marked | greedy changed | length | cut"
    yield f"| {columns} |"
    yield "|---|--:|--:|---|--:|--:|--:|--:|"
    names = dict.fromkeys(name for row in steered for name in row["sets"].split("; "))
    for name in names:
        mine = [row for row in steered if name in row["sets"].split("; ")]
        for strength in sorted({abs(float(row["strength"])) for row in mine}):
            at = [row for row in mine if abs(float(row["strength"])) == strength]
            yield f"| {name} | {strength:g} | {len(at)} | {_line(at)} |"
    yield ""


def _line(rows: Sequence[Row]) -> str:
    rises = [float(row["rise"]) for row in rows]
    marked = sum(rise > RISES for rise in rises)
    cells = [
        f"{median(rises):+.3f} [{min(rises):+.3f}, {max(rises):+.3f}]",
        f"{marked}",
        f"{fmean(float(row['changed']) for row in rows):.1%}",
        f"{fmean(float(row['length_change']) for row in rows):+.1f}",
        f"{fmean(int(row['cut']) / int(row['completions']) for row in rows):.0%}",
    ]
    return " | ".join(cells).replace("-", "−")


def _share(row: Row) -> str:
    return f"{int(row['cut']) / int(row['completions']):.0%}"


if __name__ == "__main__":
    main()
