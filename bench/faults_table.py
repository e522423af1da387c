"""Writes the table of docs/doctor.md from bench/results/faults.csv."""

from __future__ import annotations

import csv
from pathlib import Path

from pages import put

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "doctor.md"
MARK, END = "<!-- faults -->", "<!-- end of faults -->"


def table(rows: list[dict[str, str]]) -> str:
    lines = [
        "| kernels | latents, k | fault | where | tried | found | without effect "
        "| wrong, certified |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        assert row["wrong, uncertified"] == "0"
        place = "the best latent's" if row["place"] == "at the best" else "anywhere"
        lines.append(
            f"| {row['impl']} | {int(row['latents']):,}, {row['k']} | {row['fault']} | {place} "
            f"| {row['faults']} | {row['caught']} | {row['without effect']} "
            f"| {row['wrong, certified']} |"
        )
    tried, caught, missed = (
        sum(int(row[name]) for row in rows) for name in ("faults", "caught", "wrong, certified")
    )
    lines += [
        "",
        f"Of {tried:,} faults {caught:,} were found, {missed:,} changed the answer without being "
        f"found and {tried - caught - missed:,} changed nothing. After a scan that was found wrong "
        "the answer was the right one every time.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    with (HERE / "results" / "faults.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    put(PAGE, MARK, END, table(rows))


if __name__ == "__main__":
    main()
