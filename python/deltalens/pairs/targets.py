"""What a scorer is to look for in the answers to each question."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from deltalens.errors import InputError, quoted
from deltalens.pairs.questions import row_prompt
from deltalens.pairs.row import Prompt
from deltalens.storage.jsonl import Row, parse_lines

Target = str | list[str]
"""A text, or several of which any will do."""


@dataclass(frozen=True)
class Targets:
    """The targets of prompts, as they were read from ``path``."""

    path: Path
    by_prompt: Mapping[str, Target]

    def of(self, prompt: Prompt) -> Target:
        """Raises :class:`InputError` for a prompt that has none."""
        found = self.by_prompt.get(_key(prompt))
        if found is None:
            raise InputError(f"{self.path} has no target for {quoted(prompt)}; add one")
        return found

    @property
    def fingerprint(self) -> str:
        """Hash of all of them, in whatever order."""
        text = json.dumps(self.by_prompt, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:32]


def read_targets(path: str | Path, *, as_chat: bool = False) -> Targets:
    """Of a JSON Lines file of questions, as :func:`~deltalens.read_questions` has them, each with
    ``target``: a text, or a list of texts of which any will do.

    Raises :class:`InputError` with the file's name and line for what cannot be used.
    """
    path = Path(path)
    found: dict[str, Target] = {}

    def take(row: Row) -> None:
        key, target = _key(row_prompt(row, "question", as_chat=as_chat)), _target(row)
        if found.setdefault(key, target) != target:
            raise InputError("another line has the same prompt with another target; keep one")

    for _ in parse_lines(path, take):
        pass
    if not found:
        raise InputError(f"{path} holds no targets; write at least one")
    return Targets(path, found)


def _target(row: Row) -> Target:
    target = row.get("target")
    if isinstance(target, str):
        return target
    if isinstance(target, list) and target:
        texts = [one for one in target if isinstance(one, str)]
        if len(texts) == len(target):
            return texts
    raise InputError(f"'target' must be text or a list of texts, found {quoted(target)}")


def _key(prompt: Prompt) -> str:
    return json.dumps(prompt, sort_keys=True)
