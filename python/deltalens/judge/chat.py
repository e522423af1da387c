"""What judges ask of a chat model, and what it answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from deltalens.errors import InputError

Messages = list[dict[str, str]]


@dataclass(frozen=True)
class ChatRequest:
    """One request; temperature 0 takes the most probable token.

    top_logprobs: how many alternatives to the reply's first and only token are wanted; a request
    for any has max_tokens 1.
    """

    messages: Messages
    max_tokens: int
    temperature: float = 0.0
    top_logprobs: int = 0

    def __post_init__(self) -> None:
        if self.top_logprobs and self.max_tokens != 1:
            raise InputError(f"token probabilities need max_tokens 1, got {self.max_tokens}")

    @classmethod
    def ask(cls, text: str, max_tokens: int, *, top_logprobs: int = 0) -> ChatRequest:
        """One user message, answered at temperature 0."""
        messages = [{"role": "user", "content": writable(text)}]
        return cls(messages, max_tokens, top_logprobs=top_logprobs)


@dataclass(frozen=True)
class ChatReply:
    """What was answered.

    top: (text, log-probability) of the most probable first tokens, or None where they were not
    asked for or the model's server gives none; empty for an answer without tokens.
    """

    text: str
    top: list[tuple[str, float]] | None = None


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
    """A chat model behind any backend. ``name`` identifies what answers."""

    @property
    def name(self) -> str: ...

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
