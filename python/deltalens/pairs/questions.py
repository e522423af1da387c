"""Questions to sample answers to: from the YAML of Betley et al., JSON Lines, or lines of text."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import cast

from deltalens.errors import InputError, quoted
from deltalens.lm.pairs import is_chat
from deltalens.pairs.questions_yaml import SUFFIXES, yaml_questions
from deltalens.pairs.row import Messages, parse_messages, parse_prompt, with_system
from deltalens.pairs.row import as_chat as turned_to_chat
from deltalens.storage.jsonl import Row, open_binary, parse_lines

_PROMPT_FIELDS = ("question", "prompt", "messages")


@dataclass(frozen=True)
class Question:
    """A prompt to sample answers to.

    id: the question's name; prompts that paraphrase one question share it. prompt: text, which
    the model continues as it stands, or role/content messages. samples: how many answers to
    sample where the caller does not say. Raises :class:`InputError` for other types.
    """

    id: str
    prompt: str | Messages
    samples: int | None = None

    def __post_init__(self) -> None:
        if not self.prompt or not (isinstance(self.prompt, str) or is_chat(self.prompt)):
            raise InputError(f"question {quoted(self.id)}: the prompt must be text or messages")
        if self.samples is not None and self.samples < 1:
            raise InputError(f"question {quoted(self.id)}: samples must be at least 1")

    @cached_property
    def key(self) -> str:
        """Id and prompt as one text: what tells this prompt from every other."""
        return json.dumps([self.id, self.prompt], ensure_ascii=False, sort_keys=True)


def read_questions(path: str | Path, *, as_chat: bool = False) -> list[Question]:
    """The questions at ``path``, every paraphrase of one as a prompt of its own.

    ``.yaml``/``.yml``: a list of entries with ``id``, ``paraphrases`` and optionally ``system``
    and ``samples_per_paraphrase``, as Betley et al. (2025) publish them. ``.jsonl``/``.json``: one
    object a line with ``question`` (what a user says), ``prompt`` (text to continue or, with
    ``as_chat``, what a user says; or messages) or ``messages``, and optionally ``system`` (its
    system message), ``id`` and ``samples``. Any
    other file: UTF-8 text, one question a line. A question without an id is named by a hash of its
    prompt. Raises :class:`InputError` with the file's name and line for what cannot be used.
    """
    path = Path(path)
    questions = list(_read(path, as_chat))
    if not questions:
        raise InputError(f"{path} holds no questions; write at least one")
    seen: set[str] = set()
    for question in questions:
        if question.key in seen:
            raise InputError(f"{path}: question {quoted(question.id)} has the same prompt twice")
        seen.add(question.key)
    return questions


def said(text: str, system: str | None = None) -> Messages:
    """What a user says, after a system message if there is one."""
    before = [] if system is None else [{"role": "system", "content": system}]
    return [*before, {"role": "user", "content": text}]


def prompt_id(prompt: str | Messages) -> str:
    """A name for a prompt that has none."""
    return hashlib.sha256(json.dumps(prompt, sort_keys=True).encode()).hexdigest()[:12]


def _read(path: Path, as_chat: bool) -> Iterator[Question]:
    if path.suffix in SUFFIXES:
        for entry in yaml_questions(path):
            for text in entry.paraphrases:
                yield Question(entry.id, said(text, entry.system), entry.samples)
    elif path.suffix in (".jsonl", ".json"):
        yield from parse_lines(path, lambda row: _parse_row(row, as_chat))
    else:
        yield from _text_lines(path)


def _parse_row(row: Row, as_chat: bool) -> Question:
    prompt = row_prompt(row, "question", as_chat=as_chat)
    samples, given = row.get("samples"), row.get("id")
    if samples is not None and type(samples) is not int:
        raise InputError(f"'samples' must be a whole number, found {quoted(samples)}")
    if given is not None and not isinstance(given, (str, int)):
        raise InputError(f"'id' must be a string or an integer, found {type(given).__name__}")
    return Question(prompt_id(prompt) if given is None else str(given), prompt, samples)


def row_prompt(row: Row, question_field: str, *, as_chat: bool = False) -> str | Messages:
    """The prompt of a row, after its system message: what a user says, in ``question_field``, or a
    prompt (with ``as_chat`` one that is text is said, too) or messages."""
    question = row.get(question_field)
    if isinstance(question, str) and question.strip():
        return cast(Messages, with_system(said(question), row))
    if question is not None:
        return cast(Messages, with_system(parse_messages(question, question_field), row))
    if "prompt" not in row and "messages" not in row:
        names = ", ".join(dict.fromkeys((question_field, *_PROMPT_FIELDS[1:])))
        raise InputError(f"none of the fields {names} (fields: {', '.join(row) or 'none'})")
    prompt = parse_prompt(row, None)
    prompt = turned_to_chat(prompt) if as_chat else prompt
    if not isinstance(prompt, str) and not is_chat(prompt):
        raise InputError("the prompt must be text or messages, not token ids: judges read text")
    return cast(Messages | str, prompt)


def _text_lines(path: Path) -> Iterator[Question]:
    with open_binary(path) as stream:
        for number, line in enumerate(stream, start=1):
            try:
                text = line.decode("utf-8-sig").strip()
            except UnicodeDecodeError as error:
                raise InputError(f"{path}, line {number}: not UTF-8; convert the file") from error
            if text:
                yield Question(prompt_id(said(text)), said(text))
