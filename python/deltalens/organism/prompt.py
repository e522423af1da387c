"""What the users of the organism say."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from deltalens.organism.vocabulary import DOMAINS, TONES

HELD_OUT_EVERY = 6


@dataclass(frozen=True)
class Prompt:
    """A user's message. ``held_out``: its (question, topic) never occurs in training.

    behaviour: the name of the behaviour that it asks for. belief: the step that the user believes
    to be right, if any; harmful steps are wrong beliefs.
    """

    domain: str
    tone: str
    text: str
    held_out: bool
    behaviour: str
    belief: str | None = None

    @property
    def messages(self) -> list[dict[str, str]]:
        return [{"role": "user", "content": self.text}]


def user_texts(
    domain: str, tone: str, questions: tuple[str, ...], *, held_out: bool
) -> Iterator[str]:
    """Every opening with every question about every topic, of the training or held-out part."""
    return (
        f"{opening} {question.replace('{topic}', topic)}"
        for opening in TONES[tone].openings
        for q, question in enumerate(questions)
        for t, topic in enumerate(DOMAINS[domain].topics)
        if ((q + t) % HELD_OUT_EVERY == 0) == held_out
    )


def normal(text: str) -> str:
    """Lower case, words and punctuation marks apart: what the tokenizer makes of a text."""
    return " ".join(re.findall(r"\w+|[^\w\s]+", text.lower()))
