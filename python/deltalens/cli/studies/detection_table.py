"""How well latents tell a behaviour apart, as a table."""

from __future__ import annotations

from typing import Any

from deltalens.cli.output import print_line, print_table
from deltalens.study.detection.sentences import detection_sentences
from deltalens.study.detection.shown import auc_text


def print_detection(found: Any, rows: int) -> None:
    """The mean difference and the first ``rows`` latents of a
    :class:`~deltalens.study.detection.Detection`."""
    for sentence in detection_sentences(found):
        print_line(sentence)
    latents = list(dict.fromkeys(row.latent for row in found.rows))[: 1 + rows]
    for tokens in dict.fromkeys(row.tokens for row in found.rows):
        told = ([r for r in found.of_latent(one) if r.tokens == tokens] for one in latents)
        title = f"AUC of each latent's {found.metadata['value']} at {tokens} tokens"
        print_table(title, ("rank", "latent", "mean", "max"), list(map(_row, told)))
    if found.metadata["why"]:
        print_line(f"projections on decoder directions: {found.metadata['why']}")
    print_line(
        "below ½: larger where the behaviour is absent; an interval is its latent's own, and the "
        "best of many latents is best by chance, too"
    )


def _row(told: Any) -> list[str]:
    """Of one detector: the mean over tokens, and the largest."""
    rank = "" if told[0].rank is None else str(told[0].rank)
    name = told[0].detector if told[0].latent is None else str(told[0].latent)
    return [rank, name, *map(auc_text, told)]
