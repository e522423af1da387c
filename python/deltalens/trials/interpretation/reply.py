"""Name and explanation out of a language model's reply."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import NamedTuple

from deltalens.lm.text.reasoning import after_reasoning

LONGEST_NAME = 80  # letters

_LINE = r"^[\s>*_#`-]*{field}[\s*_`]*:[\s*_`]*(?P<text>\S.*?)[\s*_`]*$"
_FIELDS = {
    field: re.compile(_LINE.format(field=field), re.IGNORECASE | re.MULTILINE)
    for field in ("name", "explanation")
}
_QUOTES = " \t\"'“”‘’«»<>[]."


class Named(NamedTuple):
    """A short name, and one sentence or nothing."""

    name: str
    explanation: str


def parse_reply(reply: str) -> Named | None:
    """From lines ``NAME: …`` and ``EXPLANATION: …`` or a JSON object with these fields, the last
    of each; None where no name of a sensible length is found."""
    text = after_reasoning(reply)
    fields = next(_objects(text), None) or _lines(text)
    name = _one_line(fields.get("name", "")).strip(_QUOTES)
    if not 0 < len(name) <= LONGEST_NAME:
        return None
    return Named(name, _one_line(fields.get("explanation", "")))


def _lines(text: str) -> dict[str, str]:
    found = {name: list(pattern.finditer(text)) for name, pattern in _FIELDS.items()}
    return {name: matches[-1]["text"] for name, matches in found.items() if matches}


def _objects(text: str) -> Iterator[dict[str, str]]:
    """Fields of the JSON objects with a name that stand in the text, the last one first."""
    decoder = json.JSONDecoder()
    for start in reversed([match.start() for match in re.finditer(r"\{", text)]):
        try:
            value, _ = decoder.raw_decode(text[start:])
        except (json.JSONDecodeError, RecursionError):
            continue
        fields = {str(key).lower(): item for key, item in value.items() if isinstance(item, str)}
        if "name" in fields:
            yield fields


def _one_line(text: str) -> str:
    return " ".join(text.split())
