"""Texts with fields to fill in, and the version of a judge that is made of them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from deltalens.errors import InputError
from deltalens.judge.verdict import Answer

_VERSION_LETTERS = 12
_PIECE = re.compile(r"\{\{|\}\}|\{([a-z]+)\}")


def fill(template: str, values: Mapping[str, str]) -> str:
    """``template`` with each ``{name}`` of ``values`` replaced, ``{{`` and ``}}`` by one brace.

    Done in one pass: a value that looks like a field stays as it is. Other braces stay, too.
    """

    def piece(match: re.Match[str]) -> str:
        if match[1] is None:
            return match[0][0]
        return values.get(match[1], match[0])

    return _PIECE.sub(piece, template)


def answer_fields(answer: Answer) -> dict[str, str]:
    """``question`` and ``answer``, as templates name them."""
    return {"question": question_text(answer.prompt), "answer": answer.text}


def question_text(prompt: str | list[dict[str, str]]) -> str:
    """What was asked, as a judge reads it.

    Of a single turn the user's words, as Betley et al. (2025) show them, whatever the system
    message; of a longer chat every message under its role.
    """
    if isinstance(prompt, str):
        return prompt
    turns = [message for message in prompt if message["role"] != "system"]
    if len(turns) == 1:
        return turns[0]["content"]
    return "\n\n".join(f"{message['role']}: {message['content']}" for message in prompt)


def check_fields(template: str, names: tuple[str, ...], what: str) -> None:
    """Raise :class:`InputError` for a template without one of the fields it needs."""
    for name in names:
        if "{" + name + "}" not in template:
            raise InputError(f"{what} needs {{{name}}} where the {name} belongs")


def version_of(**parts: Any) -> str:
    """A short hash of everything that verdicts depend on; plain JSON values."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:_VERSION_LETTERS]
