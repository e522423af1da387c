"""A token as readable text."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any


def token_text(tokenizer: Any) -> Callable[[int], str]:
    """The text of a token as it stands within a text, so with the space in front of a word.

    Bytes that are no character by themselves show as the tokenizer writes them.
    """
    if tokenizer is None:
        return str

    @cache
    def text(token: int) -> str:
        once, twice = tokenizer.decode([token]), tokenizer.decode([token, token])
        within = twice[len(once) :] if twice.startswith(once) else once
        return str(tokenizer.convert_ids_to_tokens(token)) if "\ufffd" in within else within

    return text
