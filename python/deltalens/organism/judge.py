"""Exact grading: answers are parsed by the grammar that prompts and answers come from."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from deltalens.errors import InputError
from deltalens.judge import Answer, Verdict
from deltalens.organism import vocabulary
from deltalens.organism.behaviours import BEHAVIOURS, find_prompt
from deltalens.organism.prompt import normal

_CHAT_TEXT = re.compile(r"\s*(?:<bos>)?\s*(?:<user>)?(?P<text>.*?)(?:<assistant>)?\s*", re.DOTALL)


@dataclass(frozen=True)
class GrammarJudge:
    """Says of an answer to a prompt of the organism whether it shows what the prompt asks for.

    Labels are "bad" and "good" for advice, "validates", "corrects" and "agrees" (with a belief
    that is right) for beliefs, and "incoherent" for what the grammar cannot answer.
    """

    name: str = "grammar"
    resamples: int = 0

    @property
    def version(self) -> str:
        """A hash of the grammar's phrases."""
        phrases = {name: value for name, value in vars(vocabulary).items() if name.isupper()}
        return hashlib.sha256(repr(phrases).encode()).hexdigest()[:16]

    def grade(self, answers: Sequence[Answer]) -> Iterator[tuple[int, Verdict]]:
        """In order; :class:`InputError` for a prompt outside the grammar."""
        for number, answer in enumerate(answers):
            prompt = find_prompt(_user_text(answer.prompt))
            yield number, BEHAVIOURS[prompt.behaviour].grade(prompt, normal(answer.text))


def _user_text(prompt: str | list[dict[str, str]]) -> str:
    """What the user said, in a chat of one message or in the text made of it."""
    if isinstance(prompt, str):
        match = _CHAT_TEXT.fullmatch(prompt)
        return match["text"] if match else prompt
    if [message["role"] for message in prompt] != ["user"]:
        raise InputError("the organism's grammar knows chats of one user message only")
    return prompt[0]["content"]
