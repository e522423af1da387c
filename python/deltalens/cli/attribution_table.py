"""The ranked latents as a table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from deltalens.cli.output import number, p_value, print_line, print_table, tokens
from deltalens.sae.formats.neuronpedia import latent_address, name_of_run
from deltalens.study.quality import quality_sentences, significance_sentence, target_sentences

COLUMNS = ("rank", "latent", "score", "± s.e.", "p", "ranks", "push", "presence", "promotes")
SITE_COLUMNS = ("site", "stand out", "latent", "score", "p", "push", "promotes")
UNSURE = "?"


def print_attribution(result: Any, rows: int) -> None:
    """The first ``rows`` latents of an :class:`~deltalens.Attribution`."""
    shown = min(rows, len(result.latents))
    for sentence in target_sentences(result.metadata):
        print_line(sentence)
    for sentence in significance_sentence(result.metadata):
        print_line(sentence)
    table = [_row(result, rank) for rank in range(shown)]
    print_table(f"Top {shown} latents by Δ-attribution", COLUMNS, table, left=COLUMNS[-1:])
    if not result.metadata.get("certified", True):
        print_line("not certified: the score at the last place is tied with one that was left out")
    if bool(result.sign_unsure[:shown].any()):
        print_line(f"{UNSURE}: push is within three standard errors of zero; its sign is unsure")
    for sentence in quality_sentences(result.metadata):
        print_line(sentence)
    if shown and (name := name_of_run(result.metadata)) is not None:
        first = latent_address(name, int(result.latents[0]))
        print_line(f"the first latent at Neuronpedia: {first}")


def print_sites(results: Sequence[Any]) -> None:
    """The first latent of each of several sites' studies, and how many stand out there."""
    table = []
    for result in results:
        _, latent, score, _, p, _, push, _, promotes = _row(result, 0)
        table.append([result.site, str(result.stand_out), latent, score, p, push, promotes])
    left = (SITE_COLUMNS[0], SITE_COLUMNS[-1])
    for sentence in target_sentences(results[0].metadata):
        print_line(sentence)
    print_table("The first latent of each site", SITE_COLUMNS, table, left=left)


def _row(result: Any, rank: int) -> list[str]:
    return [
        str(rank + 1),
        str(int(result.latents[rank])),
        number(float(result.scores[rank])),
        f"{float(result.stderr[rank]):.0e}",
        p_value(float(result.p_value[rank])),
        _interval(float(result.rank_low[rank]), float(result.rank_high[rank])),
        number(float(result.push[rank])) + UNSURE * bool(result.sign_unsure[rank]),
        number(float(result.presence[rank])),
        tokens(result.lens_of(rank).promotes),
    ]


def _interval(low: float, high: float) -> str:
    """Where most of the latent's ranks lie when pairs are drawn anew."""
    if math.isnan(low):
        return "–"
    return f"{low:.0f}" if low == high else f"{low:.0f}–{high:.0f}"
