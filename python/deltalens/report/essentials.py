"""What the page shows without its script: what was studied and found, and the first latents."""

from __future__ import annotations

from typing import Any

from deltalens.report.text import readable
from deltalens.visible.markup import Markup, h, join, link
from deltalens.visible.values import number, p_value

Json = dict[str, Any]

ROWS_SHOWN = 100
_TOKENS = 4
_COLUMNS = ("rank", "latent", "score", "s.e.", "p", "push", "presence", "promotes")


def essentials(document: Json) -> dict[str, str]:
    """Parts of the page, as markup, by their names in its template."""
    return {
        "heading": join(f"Which latents cause {document['behaviour']}?"),
        "facts": join(*(h("div", h("dt", k), h("dd", v)) for k, v in document["facts"])),
        "findings": join(*(h("li", text) for text in document["findings"])),
        "version": join(f"Made by deltalens {document['version']}."),
        "first": _table([one for one in document["latents"] if one["rank"] is not None]),
    }


def _table(ranked: list[Json]) -> Markup:
    """The first latents, for readers whose browser runs no script."""
    head = h("tr", *(h("th", name, scope="col") for name in _COLUMNS))
    rows = (h("tr", *map(_cell, _values(one))) for one in ranked[:ROWS_SHOWN])
    cut = f"The first {ROWS_SHOWN} of {len(ranked):,} latents." if len(ranked) > ROWS_SHOWN else ""
    return join(h("table", h("thead", head), h("tbody", *rows)), h("p", cut, class_="note"))


def _cell(shown: str) -> Markup:
    return h("td", shown)


def _values(one: Json) -> list[str]:
    latent = str(one["latent"])
    page = one.get("neuronpedia")
    return [
        str(one["rank"]),
        latent if page is None else link(page, latent),
        *(_number(one[name]) for name in ("score", "stderr")),
        "–" if one["p_value"] is None else p_value(one["p_value"]),
        *(_number(one[name]) for name in ("push", "presence")),
        readable(" ".join(text for text, _ in one["promotes"][:_TOKENS]), 200),
    ]


def _number(value: float | None) -> str:
    return "–" if value is None else number(value)
