"""Where in a completion's text its tokens stand."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from deltalens.lm.text.completions import bare_ids

_BEFORE = "."  # decoders take a space off the beginning of a text, not from within
_HALF = "\ufffd"


class Placed(NamedTuple):
    """A completion's text, and of each token the characters [begin, end) that it has a part in."""

    text: str
    spans: list[tuple[int, int]]


def placed(tokenizer: Any, ids: Sequence[int]) -> Placed:
    """The text of ``ids`` as it follows other text, so with the space in front of a first word.

    A character that several tokens make together is of each of them; special tokens are written
    out.
    """
    text, spans, begin = "", [], 0
    before, group, said = bare_ids(tokenizer, _BEFORE), [], ""
    for token in ids:
        group.append(token)
        said, whole = _added(tokenizer, before, group)
        is_whole = whole == len(said)
        spans.append((len(text) + begin, len(text) + whole + (not is_whole)))
        begin = whole
        if is_whole:
            text, before, group, begin = text + said, group, [], 0
    return Placed(text + said if group else text, spans)


def matching(tokenizer: Any, ids: Sequence[int], pattern: re.Pattern[str]) -> list[bool]:
    """Which tokens have a part in a match of ``pattern``, or of its first group if it has one."""
    text, spans = placed(tokenizer, ids)
    found = [match.span(min(pattern.groups, 1)) for match in pattern.finditer(text)]
    return [any(begin < e and b < end for b, e in found) for begin, end in spans]


def _added(tokenizer: Any, before: Sequence[int], group: Sequence[int]) -> tuple[str, int]:
    """What ``group`` adds to the text of ``before``, and how many characters of it are whole."""
    known, both = (_decoded(tokenizer, ids) for ids in (before, [*before, *group]))
    if not both.startswith(known):  # bytes that are no character yet undo those before them
        return _HALF, 0
    said = both[len(known) :]
    return said, len(said.rstrip(_HALF))


def _decoded(tokenizer: Any, ids: Sequence[int]) -> str:
    return tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
