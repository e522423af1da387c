"""Text as something that can be shown anywhere; beside it, how results show themselves."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable

_UNSEEN = ("Cc", "Cf", "Co", "Cs", "Zl", "Zp")  # controls, and what changes the text around it
_MARKS = {"\n": "↵", "\t": "→"}


def visible(text: str) -> str:
    """``text`` without anything that acts on a terminal or hides: such characters as escapes."""
    return _shown(text, lambda letter: _MARKS.get(letter) or _escape(letter))


def visible_lines(text: str) -> str:
    """The same of each line, so that lines stay lines."""
    return "\n".join(map(visible, text.split("\n")))


def visible_json(text: str) -> str:
    """The same JSON document, in which such characters are JSON's own escapes."""
    return "\n".join(
        _shown(line, lambda letter: json.dumps(letter)[1:-1]) for line in text.split("\n")
    )


def is_utf8(text: str) -> bool:
    """Whether it can be written as UTF-8: a lone surrogate, as files' names may have, cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _shown(text: str, escape: Callable[[str], str]) -> str:
    if text.isprintable():
        return text
    return "".join(
        escape(letter) if unicodedata.category(letter) in _UNSEEN else letter for letter in text
    )


def _escape(letter: str) -> str:
    return letter.encode("unicode_escape").decode("ascii")
