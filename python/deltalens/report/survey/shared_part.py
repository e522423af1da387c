"""Latents that behaviours share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deltalens.report.survey.markup import number, p_value, report_link, text, tokens
from deltalens.study.survey.words import place_name
from deltalens.visible.markup import Markup, h, join

Json = Mapping[str, Any]

SHOWN = 25  # latents of a place


def shared_part(found: Json) -> Markup:
    """For each place: how many latents every two behaviours share, and which are shared."""
    runs = {(s["behaviour"], s["site"], s["sae"]): s["run"] for s in found["studies"]}
    return join(*(_place(one, runs) for one in found["shared"] if one["pairs"]))


def _place(one: Json, runs: Mapping[Any, str]) -> Markup:
    count = len(one["latents"])
    summary = h(
        "summary",
        h("b", text(place_name(one))),
        f" – {count} {'latent' if count == 1 else 'latents'} in more than one ranking",
    )
    pairs = h("ul", *(h("li", _pair(pair)) for pair in one["pairs"]), class_="note")
    if not count:
        return h("details", summary, pairs)
    titles = {"latent": None, "in": None, "push": "number", "promotes": None}
    head = h("tr", *(h("th", title, scope="col", class_=kind) for title, kind in titles.items()))
    rows = [_row(one, latent, runs) for latent in one["latents"][:SHOWN]]
    left = count - SHOWN
    return h(
        "details",
        summary,
        pairs,
        h("div", h("table", h("thead", head), h("tbody", *rows)), class_="scroll"),
        h("p", f"{left} more are in survey.json", class_="note") if left > 0 else "",
        open="",
    )


def _pair(pair: Json) -> str:
    first, second = pair["behaviours"]
    return text(
        f"{first} and {second} share {pair['shared']}; {pair['expected']:.2g} are expected by "
        f"chance (p = {pair['probability']:.2g})",
        400,
    )


def _row(one: Json, latent: Json, runs: Mapping[Any, str]) -> Markup:
    def where(item: Json) -> Markup:
        run = runs[item["behaviour"], one["site"], one["sae"]]
        said = f"{text(item['behaviour'])} #{item['rank']}"
        more = f"score {number(item['score'])}, p {p_value(item['p_value'])}"
        link = h("a", said, href=report_link(run, latent["latent"]), title=more)
        return h("div", link, "*" if item["stands_out"] else "")

    def push(item: Json) -> Markup:
        return h("div", number(item["push"]) + "?" * item["sign_unsure"])

    agree = "same sign" if latent["same_push"] else "signs differ"
    return h(
        "tr",
        h("td", str(latent["latent"])),
        h("td", *map(where, latent["in"])),
        h("td", *map(push, latent["in"]), h("div", agree, class_="label"), class_="number"),
        h("td", tokens(latent["promotes"]), class_="words"),
    )
