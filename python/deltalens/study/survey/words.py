"""What a survey's places are called, and what its p-values mean when there are many studies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from deltalens.study.significance.sentence import LEVEL


def place_label(place: Mapping[str, Any]) -> str:
    """A place's short name: the layer, the kind where it is no block's output, the SAE's name."""
    kind = place["site"].rpartition(".")[2].removeprefix("hook_")
    label = str(place["layer"]) + ("" if kind == "resid_post" else f" {kind}")
    return label if place["sae"] is None else f"{label} · {place['sae']}"


def place_name(place: Mapping[str, Any]) -> str:
    """Its whole name."""
    return place["site"] if place["sae"] is None else f"{place['site']} · {place['sae']}"


def multiplicity_sentences(found: Mapping[str, Any]) -> Iterator[str]:
    """Of the ``multiplicity`` of a survey's summary, and its studies."""
    many = found["tested"]
    if not many:
        yield "Whether any latent stands out from chance was not tested in any study."
        return
    yield (
        "p-values are family-wise within a study: over all latents of its SAE, not over the "
        f"{many} studies."
    )
    own, across = found["stand_out"], found["stand_out_across"]
    yield (
        f"{own} of {many} studies {'has' if own == 1 else 'have'} a latent that stands out "
        f"(p ≤ {LEVEL:g}); over all {many} together (Holm) "
        f"{across} {'does' if across == 1 else 'do'}."
    )
    yield from _limits(found)


def _limits(found: Mapping[str, Any]) -> Iterator[str]:
    many, out = found["tested"], found["out_of_reach"]
    if not out:
        yield (
            "The number of sign flips limits how small p can be: over all studies no smaller than "
            f"{found['smallest_possible']:.2g}."
        )
        return
    whose = "No study" if out == many else f"{many - out} of {many} studies"
    yield (
        f"{whose} can stand out over all {many}: sign flips give no p-value small enough for it, "
        f"which takes {found['flips_needed']:,} flips and the pairs for them."
    )
