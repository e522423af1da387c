"""The map: a row for each behaviour, a column for each place, and how much stands out there."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from deltalens.report.survey.markup import NONE, p_value, report_link, text
from deltalens.study.significance.sentence import LEVEL
from deltalens.study.survey.words import place_label, place_name
from deltalens.visible.markup import Markup, h, join

Json = Mapping[str, Any]


def map_part(found: Json) -> Markup:
    """The map of a survey's summary."""
    at = {(s["behaviour"], s["site"], s["sae"]): s for s in found["studies"]}
    most = max((study["stand_out"] for study in found["studies"]), default=0)
    head = h(
        "tr",
        h("th", "behaviour", scope="col"),
        *(
            h("th", text(place_label(place)), scope="col", title=text(place_name(place)))
            for place in found["places"]
        ),
    )
    rows = [
        h(
            "tr",
            h("th", text(name), scope="row"),
            *(
                _cell(at.get((name, place["site"], place["sae"])), most)
                for place in found["places"]
            ),
        )
        for name in found["behaviours"]
    ]
    table = h("table", h("thead", head), h("tbody", *rows), class_="map")
    return h("div", table, class_="scroll", tabindex="0", role="region", aria_label="Map")


def _cell(study: Json | None, most: int) -> Markup:
    """Latents that stand out in a study, with the smallest p and whether that holds over all."""
    if study is None:
        return h("td", NONE, title="no such study in this survey")
    if math.isnan(study["smallest"]):
        inside = h("a", NONE, href=report_link(study["run"]))
        return h("td", inside, title="not tested")
    share = math.log1p(study["stand_out"]) / math.log1p(most) if most else 0.0
    across = study["adjusted"] <= LEVEL
    inside = join(
        h(
            "a",
            str(study["stand_out"]),
            h("sup", "*") if across else "",
            href=report_link(study["run"]),
        ),
        h("small", f"p {p_value(study['smallest'])}"),
    )
    more = f"{study['stand_out']} of {study['ranked']} ranked latents stand out in this study"
    more += f"; smallest p over all studies (Holm) {p_value(study['adjusted'])}"
    more += f"; {study['stand_out_across']} latents stand out over all studies"
    return h("td", inside, style=f"--share:{share:.3f}", title=more)
