"""What a study's test says, in one sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LEVEL = 0.05


def stands_out_sentence(record: Mapping[str, Any]) -> str:
    """How many latents stand out from chance, that none does, or why that is not known."""
    if not record["flips"]:
        if record["pairs"] == 1:
            return "Whether any latent stands out from chance cannot be told from a single pair."
        return "Whether any latent stands out from chance was not tested (0 sign flips)."
    family = f"over all {record['latents']:,} latents, {_flips(record)}"
    if record["smallest_possible"] > LEVEL:
        return (
            f"With {record['pairs']} pairs no latent can stand out: the smallest possible "
            f"family-wise p is {record['smallest_possible']:.2g} ({family})."
        )
    if record["stand_out"]:
        verb = "stands" if record["stand_out"] == 1 else "stand"
        return (
            f"{record['stand_out']:,} of {record['ranked']:,} ranked latents {verb} out "
            f"(family-wise p ≤ {LEVEL:g} {family}){_others(record, '; of all latents {} do')}."
        )
    if record["stand_out_of_all"]:
        verb = "does" if record["stand_out_of_all"] == 1 else "do"
        return (
            f"No ranked latent stands out (smallest family-wise p {record['smallest']:.2g} "
            f"{family}), but {_others(record, '{}')} outside the ranking {verb}: raise k."
        )
    return (
        f"No latent stands out (smallest family-wise p {record['smallest']:.2g} {family}): "
        "this ranking is what chance gives."
    )


def _flips(record: Mapping[str, Any]) -> str:
    every = "all " if record["exact"] else ""
    return f"{every}{record['flips']:,} sign flips of {record['pairs']:,} pairs"


def _others(record: Mapping[str, Any], text: str) -> str:
    found = record["stand_out_of_all"]
    if found <= record["stand_out"]:
        return ""
    many = f"{found:,} or more" if found == record["counted_to"] else f"{found:,}"
    return text.format(many)
