"""What judges ask of a chat model, and what it answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

Messages = list[dict[str, str]]

NUMBER_TOKENS = 4  # a space and three digits


@dataclass(frozen=True)
class ChatRequest:
    """One request; temperature 0 takes the most probable token.

    numbers: the probabilities of whole numbers as the reply are wanted, beside its beginning.
    """

    messages: Messages
    max_tokens: int
    temperature: float = 0.0
    numbers: bool = False

    @classmethod
    def ask(cls, text: str, max_tokens: int) -> ChatRequest:
        """One user message, answered at temperature 0."""
        return cls([{"role": "user", "content": writable(text)}], max_tokens)

    @classmethod
    def ask_number(cls, text: str) -> ChatRequest:
        """One user message to be answered with a whole number of 0 … 100."""
        messages = [{"role": "user", "content": writable(text)}]
        return cls(messages, NUMBER_TOKENS, numbers=True)


@dataclass(frozen=True)
class ChatReply:
    """What was answered.

    numbers: (n, probability that the reply is the whole number n), or None where they were not
    asked for or the model's server gives no token probabilities.
    """

    text: str
    numbers: list[tuple[int, float]] | None = None


@dataclass
class Usage:
    """What a chat model was used for so far.

    requests: answered ones; cached: replies that needed no request; tokens as the server counts.
    """

    requests: int = 0
    cached: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def add(self, prompt_tokens: int, completion_tokens: int) -> None:
        """Count one more answered request."""
        self.requests += 1
        self.prompt_tokens += prompt_tokens
        self.completion_tokens += completion_tokens

    def cost(self, price_in: float, price_out: float) -> float:
        """At prices per million prompt and completion tokens."""
        return (self.prompt_tokens * price_in + self.completion_tokens * price_out) / 1e6


class ChatModel(Protocol):
    """A chat model behind any backend.

    name: identifies what answers. address: where it does, without credentials; empty for a model in
    this process.
    """

    @property
    def name(self) -> str: ...

    @property
    def address(self) -> str: ...

    @property
    def usage(self) -> Usage: ...

    def complete(self, requests: Sequence[ChatRequest]) -> Iterator[tuple[int, ChatReply]]:
        """(position in ``requests``, reply) as they come, in any order.

        Raises :class:`~deltalens.judge.JudgeError` when it cannot go on, after every reply that
        has come has been yielded.
        """
        ...


def writable(text: str) -> str:
    """Without halves of characters, which JSON can carry and no file can."""
    return text.encode("utf-8", "replace").decode("utf-8")
