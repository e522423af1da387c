"""Requests and replies as an OpenAI-compatible endpoint takes and gives them."""

from __future__ import annotations

import warnings
from typing import Any

from deltalens.judge.chat import ChatReply, ChatRequest, Usage, writable
from deltalens.judge.retries import said_by


class MalformedReply(Exception):
    """A successful response that is no chat completion."""

    message = "the reply is no chat completion"


class Dialect:
    """Which of two spellings of a request the endpoint's model takes."""

    def __init__(self) -> None:
        self._limit = "max_tokens"
        self._temperature = True

    def parameters(self, request: ChatRequest) -> dict[str, Any]:
        """The request's body, without the model."""
        body: dict[str, Any] = {"messages": request.messages, self._limit: request.max_tokens}
        if self._temperature:
            body["temperature"] = request.temperature
        if request.top_logprobs:
            body |= {"logprobs": True, "top_logprobs": request.top_logprobs}
        return body

    def learn(self, error: Any, model: str) -> None:
        """Change over when the error says that a parameter is not supported."""
        if getattr(error, "status_code", None) != 400:
            return
        if "max_completion_tokens" in said_by(error):
            self._limit = "max_completion_tokens"
        elif getattr(error, "param", None) == "temperature" and self._temperature:
            self._temperature = False
            warnings.warn(f"{model} takes no temperature and answers with its own", stacklevel=2)


def read_reply(completion: Any, usage: Usage) -> ChatReply:
    """The reply in the client's object, counted; :class:`MalformedReply` if there is none."""
    try:
        choice, message = completion.choices[0], completion.choices[0].message
        text = message.content or getattr(message, "refusal", None) or ""
        listed = choice.logprobs.content[0].top_logprobs if choice.logprobs else None
        top = listed and [(item.token, float(item.logprob)) for item in listed]
        counted = completion.usage
        usage.add(*((counted.prompt_tokens, counted.completion_tokens) if counted else (0, 0)))
    except (AttributeError, IndexError, TypeError, ValueError) as error:
        raise MalformedReply from error
    return ChatReply(writable(str(text)), top or None)
