"""A survey as a table."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from deltalens.cli.output import print_line, print_table
from deltalens.study.significance.sentence import LEVEL
from deltalens.study.survey.words import multiplicity_sentences, place_label


def print_survey(found: Mapping[str, Any]) -> None:
    """The map of a survey's summary: a row for each behaviour, a column for each place."""
    at = {(s["behaviour"], s["site"], s["sae"]): s for s in found["studies"]}
    rows = [
        [name, *(_cell(at.get((name, place["site"], place["sae"]))) for place in found["places"])]
        for name in found["behaviours"]
    ]
    columns = ["behaviour", *map(place_label, found["places"])]
    print_table("Ranked latents that stand out, by layer", columns, rows, left=columns[:1])
    if any("*" in cell for row in rows for cell in row[1:]):
        print_line("*: the study stands out over all studies, too")
    if found["target"] != "loss":
        print_line(f"target: {found['target']}")
    for sentence in multiplicity_sentences(found["multiplicity"]):
        print_line(sentence)


def _cell(study: Mapping[str, Any] | None) -> str:
    if study is None or math.isnan(study["smallest"]):
        return "–"
    return str(study["stand_out"]) + "*" * (study["adjusted"] <= LEVEL)
