"""Text of tokens and completions as something that can be shown anywhere."""

from __future__ import annotations

import unicodedata

_UNSEEN = ("Cc", "Cf", "Co", "Cs", "Zl", "Zp")  # controls, and what changes the text around it
_MARKS = {"\n": "↵", "\t": "→"}


def visible(text: str) -> str:
    """``text`` without anything that acts on a terminal or hides: such characters as escapes."""
    return "".join(
        _MARKS.get(letter)
        or (_escape(letter) if unicodedata.category(letter) in _UNSEEN else letter)
        for letter in text
    )


def _escape(letter: str) -> str:
    return letter.encode("unicode_escape").decode("ascii")
