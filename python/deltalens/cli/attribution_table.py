"""The ranked latents as a table."""

from __future__ import annotations

from typing import Any

from deltalens.cli.output import number, print_line, print_table, tokens
from deltalens.study.quality import quality_sentences

COLUMNS = ("rank", "latent", "score", "± s.e.", "push", "presence", "promotes")


def print_attribution(result: Any, rows: int) -> None:
    """The first ``rows`` latents of an :class:`~deltalens.Attribution`."""
    shown = min(rows, len(result.latents))
    table = [_row(result, rank) for rank in range(shown)]
    print_table(f"Top {shown} latents by Δ-attribution", COLUMNS, table, left=COLUMNS[-1:])
    if not result.metadata.get("certified", True):
        print_line("not certified: the score at the last place is tied with one that was left out")
    for sentence in quality_sentences(result.metadata):
        print_line(sentence)


def _row(result: Any, rank: int) -> list[str]:
    return [
        str(rank + 1),
        str(int(result.latents[rank])),
        number(float(result.scores[rank])),
        f"{float(result.stderr[rank]):.0e}",
        number(float(result.push[rank])),
        number(float(result.presence[rank])),
        tokens(result.lens_of(rank).promotes),
    ]
