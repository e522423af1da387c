"""Each study's first latents."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from deltalens.report.survey.markup import number, p_value, report_link, text, tokens
from deltalens.study.survey.words import place_name
from deltalens.visible.markup import Markup, h, join

Json = Mapping[str, Any]


_COLUMNS = {
    "site": None,
    "latent": None,
    "score": "number",
    "p": "number",
    "push": "number",
    "promotes": None,
}


def studies_part(found: Json) -> Markup:
    """A table for each behaviour, with a row for each of its best latents at each place."""
    return join(*(_behaviour(found, name) for name in found["behaviours"]))


def _behaviour(found: Json, name: str) -> Markup:
    studies = [study for study in found["studies"] if study["behaviour"] == name]
    studies.sort(key=lambda study: study["layer"])
    head = h("tr", *(h("th", title, scope="col", class_=kind) for title, kind in _COLUMNS.items()))
    rows = [row for study in studies for row in _rows(study)]
    table = h("table", h("thead", head), h("tbody", *rows))
    out = sum(study["stand_out"] > 0 for study in studies)
    said = f" – something stands out in {out} of {len(studies)} studies"
    return h(
        "details",
        h("summary", h("b", text(name)), said),
        h("div", table, class_="scroll"),
        open="",
    )


def _rows(study: Json) -> Iterator[Markup]:
    for place, latent in enumerate(study["best"]):
        first = place == 0
        yield h(
            "tr",
            h(
                "td",
                h("a", text(place_name(study)), href=report_link(study["run"])) if first else "",
            ),
            h(
                "td",
                h("a", str(latent["latent"]), href=report_link(study["run"], latent["latent"])),
            ),
            h("td", f"{number(latent['score'])} ± {latent['stderr']:.1g}", class_="number"),
            h("td", p_value(latent["p_value"]), class_="number"),
            h("td", number(latent["push"]) + "?" * latent["sign_unsure"], class_="number"),
            h("td", tokens(latent["promotes"]), class_="words"),
            class_="first" if first else None,
        )
