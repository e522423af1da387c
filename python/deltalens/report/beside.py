"""A study beside this one, as JSON values."""

from __future__ import annotations

from collections.abc import Iterator
from math import isnan
from pathlib import Path
from typing import Any

from deltalens.report.evidence import Evidence
from deltalens.report.text import place_name, readable
from deltalens.study.attribution import Attribution
from deltalens.study.comparison.compare import compare
from deltalens.study.comparison.result import Comparison

_SHOWN = 100  # shared latents


def beside_document(evidence: Evidence, other: str | Path) -> dict[str, Any]:
    """How the ranking of another run agrees with this one.

    Raises :class:`InputError` for a run that cannot be read or compared.
    """
    theirs = Attribution.load(other)
    found = compare(evidence.attribution, theirs, names=(str(evidence.run), str(other)))
    behaviour = theirs.metadata.get("behaviour")
    return {
        "name": place_name(str(behaviour or other)),
        "sentences": [readable(text) for text in _sentences(found)],
        "shared": [
            {"latent": item.latent, "rank": item.ranks[0], "other_rank": item.ranks[1]}
            for item in found.shared[:_SHOWN]
        ],
    }


def _sentences(found: Comparison) -> Iterator[str]:
    here, there = found.k
    yield (
        f"{len(found.shared)} latents are among the first {here} here and the first {there} of "
        f"{place_name(found.names[1])}; {found.expected:.2g} are expected by chance "
        f"(p = {found.probability:.2g})."
    )
    yield _top(found)
    for correlation, over in (
        (found.correlation, "the shared latents"),
        (found.correlation_all, "all latents"),
    ):
        if not isnan(correlation):
            yield f"Rank correlation (Spearman) over {over}: {correlation:+.2f}."
    for name, (first, second) in found.differences.items():
        yield f"The runs differ in {name}: {first} here, {second} there."


def _top(found: Comparison) -> str:
    if found.same_top:
        return f"Latent {found.top[0]} comes first in both."
    here, there = ("not listed" if rank is None else f"number {rank}" for rank in found.top_ranks)
    return (
        f"The first here, latent {found.top[0]}, is {here} there; the first there, latent "
        f"{found.top[1]}, is {there} here."
    )
