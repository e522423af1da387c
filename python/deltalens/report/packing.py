"""The document as the page carries it: rows for its table, and of each latent a packed card."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

Json = dict[str, Any]

CARDS_MOST = 8_000_000  # characters of all cards, so that a page stays below 10 MB
_SHOWN = ("version", "behaviour", "facts", "findings")  # which the page has as markup
_TEXTS = ("pairs", "completions", "tokens")  # which all cards share
_ROW = (
    "latent",
    "rank",
    "sets",
    "score",
    "stderr",
    "p_value",
    "push",
    "presence",
    "sign_unsure",
    "promotes",
    "suppresses",
    "neuronpedia",
)
_LARGE = ("examples", "per_token")
_CUT = (
    "the cards of the last {count:,} latents are without examples and tokens of prompts, which "
    "would make this page larger than 10 MB"
)


def packed(document: Json) -> Json:
    """Rows stay JSON, for the page to sort and search; cards and the texts of pairs are packed
    until they are asked for.

    Where the cards would be larger than ``CARDS_MOST``, those of the last latents are cut, which
    ``left_out`` says.
    """
    cards = list(_cards(document["latents"]))
    cut = sum(is_cut for _, is_cut in cards)
    said = [_CUT.format(count=cut)] if cut else []
    kept = {name: value for name, value in document.items() if name not in (*_SHOWN, *_TEXTS)}
    return {
        **kept,
        "left_out": [*document["left_out"], *said],
        "latents": list(map(_row, document["latents"])),
        "cards": [card for card, _ in cards],
        "texts": pack({name: document[name] for name in _TEXTS}),
    }


def pack(value: Any) -> str:
    """JSON in UTF-8, deflated, in base64."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return base64.b64encode(zlib.compress(text.encode(), 9)).decode("ascii")


def _cards(latents: list[Json]) -> Iterator[tuple[str, bool]]:
    left = CARDS_MOST
    for one in latents:
        card = pack(one)
        cut = len(card) > left and any(name in one for name in _LARGE)
        if cut:
            card = pack({name: value for name, value in one.items() if name not in _LARGE})
        left -= len(card)
        yield card, cut


def _row(one: Json) -> Json:
    """What the table shows, sorts by and searches, and the tips of figures."""
    row = {name: one[name] for name in _ROW if name in one}
    if "names" in one:
        row["names"] = [{"name": found["name"]} for found in one["names"]]
    if "detection" in one:
        row["detection"] = one["detection"][:1]
    if "steering" in one:
        row["steering"] = {name: _arm(arm) for name, arm in one["steering"].items()}
    return row


def _arm(arm: Mapping[str, Any]) -> Json:
    return {name: arm[name] for name in ("change", "beyond")}
