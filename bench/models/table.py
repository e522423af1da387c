"""Writes docs/models.md from bench/results/models.csv: python bench/models/table.py."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

from run import RESULTS, Row, read_rows

PAGE = RESULTS.parents[2] / "docs" / "models.md"
OPERATIONS = ("attribute", "sample", "ablate")
INTRODUCTION = """\
# Models that were tried

Written by `make models`. Each model is built tiny, with random weights, and attributed
(`attribute`: four pairs of prompts of different lengths, every one of a random dictionary's 48
latents), sampled (`sample`: greedy, 8 tokens, steered everywhere and at generated tokens only) and
ablated (`ablate`: two latents). The results are held against the naive way: one row a pass, plain
autograd, a hook of its own, no cache, sums in fp64.

An error is the largest difference divided by the largest value that there should be. *Equal* is at
most 1e-4 (for 16-bit weights: at most twice what the naive way itself is off from fp32); for
tokens, each is the most probable one but for rounding. *Refused*: one line says why. *Wrong* and
*crashed* are faults, kept here as they were found. *Not built*: it could not be made small here, or
its own forward pass does not take token ids alone; nothing is known of it.

For tokenizers `sample` makes pairs of a model's own answers and `attribute` is the losses of those
pairs, read back from their file, beside those of the ids that were sampled.
"""


def main() -> None:
    """One table a kind, and the counts of each."""
    rows = list(read_rows().values())
    parts = [INTRODUCTION, *_totals(rows)]
    for kind in dict.fromkeys(row["kind"] for row in rows):
        parts += _table(kind, [row for row in rows if row["kind"] == kind])
    PAGE.write_text("\n".join(parts), encoding="utf-8")


def _totals(rows: list[Row]) -> Iterable[str]:
    words = ("equal", "refused", "wrong", "crashed", "not built")
    yield f"| kind | transformers | {' | '.join(words)} |"
    yield "|---|---|" + "--:|" * len(words)
    for kind, version in dict.fromkeys((row["kind"], row["transformers"]) for row in rows):
        counts = Counter(
            row["outcome"] for row in rows if (row["kind"], row["transformers"]) == (kind, version)
        )
        yield f"| {kind} | {version} | " + " | ".join(str(counts[word]) for word in words) + " |"
    yield ""
    yield "A model counts as the worst of its three operations: one that is attributed and ablated"
    yield "but refused by sampling counts as refused."
    yield ""


def _table(kind: str, rows: list[Row]) -> Iterable[str]:
    yield f"## {kind[0].upper()}{kind[1:]}\n"
    tried = [row for row in rows if row["outcome"] != "not built"]
    if tried:
        yield "| name | transformers | attribute | sample | ablate | note |"
        yield "|---|---|---|---|---|---|"
    for row in tried:
        cells = " | ".join(_cell(row, operation) for operation in OPERATIONS)
        yield f"| {row['name']} | {row['transformers']} | {cells} | {_safe(row['note'])} |"
    missing = [row for row in rows if row["outcome"] == "not built"]
    if missing:
        yield "\nNot built:\n"
    for row in missing:
        yield f"* {row['name']} ({row['transformers']}): {_safe(row['note'])}"
    yield ""


def _cell(row: Row, operation: str) -> str:
    word, error = row.get(operation, ""), row.get(f"{operation}_error", "")
    shown = f"**{word}**" if word in ("wrong", "crashed") else word
    return f"{shown} {error}".strip() or "–"


def _safe(text: str) -> str:
    return re.sub(r"([|*_<>`])", r"\\\1", text)


if __name__ == "__main__":
    main()
