"""The ranked latents as a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from deltalens.cli.output import number, print_line, print_table, tokens

COLUMNS = ("rank", "latent", "score", "± s.e.", "push", "presence", "promotes")


def print_attribution(result: Any, rows: int) -> None:
    """The first ``rows`` latents of an :class:`~deltalens.Attribution`."""
    shown = min(rows, len(result.latents))
    table = [_row(result, rank) for rank in range(shown)]
    print_table(f"Top {shown} latents by Δ-attribution", COLUMNS, table, left=COLUMNS[-1:])
    if not result.metadata.get("certified", True):
        print_line("not certified: the score at the last place is tied with one that was left out")
    for line in quality_lines(result.metadata):
        print_line(line)


def quality_lines(metadata: Mapping[str, Any]) -> Iterator[str]:
    """What a reader must know of the numbers: tokens left out, and whether first order holds."""
    sinks = metadata.get("sinks") or {}
    if sinks.get("limit") is not None:
        yield (
            f"of {sinks['tokens']} prompt tokens {sinks['first']} first ones and "
            f"{sinks['massive']} with norms above {sinks['limit']:.4g} (median "
            f"{sinks['median']:.4g}) are left out as attention sinks"
        )
    found = metadata.get("first_order") or {}
    if found.get("undefined"):
        yield f"first order was not held against ablation: {found['undefined']}"
    elif found:
        yield (
            f"first order against exact ablation of {found['latents']} latents over "
            f"{found['pairs']} pairs: correlation {found['correlation_entries']:.2f}, slope "
            f"{found['slope']:.2f}"
        )
    for token in (metadata.get("dominant_tokens") or [])[:1]:
        where = (
            f"the token at position {token['position']}"
            if token["token"] is None
            else f"the token {token['token']!r}"
        )
        yield (
            f"{where} carries more than half of the score of {len(token['latents'])} latents "
            f"(norm {token['norm']:.2g} × median)"
        )


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
