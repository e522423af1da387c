"""Requests and replies as an OpenAI-compatible endpoint takes and gives them."""

from __future__ import annotations

import warnings
from typing import Any

from deltalens.errors import quoted
from deltalens.judge.chat import ChatReply, ChatRequest, Usage, writable
from deltalens.judge.listed import Listed
from deltalens.judge.retries import said_by
from deltalens.judge.verdict import JudgeError

ALTERNATIVES = 20  # to each token; endpoints give no more
ROUNDING = 1e-6  # by which a log-probability may exceed 0
MOST_TOKENS = 1 << 40


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
        if request.numbers:
            body |= {"logprobs": True, "top_logprobs": ALTERNATIVES}
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
        message = completion.choices[0].message
        text = message.content or getattr(message, "refusal", None) or ""
        counted = completion.usage
        tokens = (counted.prompt_tokens, counted.completion_tokens) if counted else (0, 0)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise MalformedReply from error
    if not isinstance(text, str):
        raise MalformedReply
    usage.add(*map(_count, tokens))
    return ChatReply(writable(text))


def _count(tokens: Any) -> int:
    """What a server says it counted; 0 for nonsense."""
    return tokens if type(tokens) is int and 0 <= tokens < MOST_TOKENS else 0


def read_listed(completion: Any) -> list[Listed] | None:
    """The reply's tokens with their alternatives; None where the server gives none.

    Raises :class:`MalformedReply` where there should be some, and :class:`JudgeError` for what is
    no log-probability.
    """
    try:
        logprobs = completion.choices[0].logprobs
        if logprobs is None or logprobs.content is None or not logprobs.content[0].top_logprobs:
            return None
        given = [(_pair(item), list(map(_pair, item.top_logprobs))) for item in logprobs.content]
    except (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise MalformedReply from error
    return [Listed(*_checked(token), list(map(_checked, others))) for token, others in given]


def reasons(completion: Any) -> bool:
    """Whether the server has set reasoning apart from the reply."""
    message = completion.choices[0].message
    return any(getattr(message, name, None) for name in ("reasoning_content", "reasoning"))


def _pair(item: Any) -> tuple[str, float]:
    return str(item.token), float(item.logprob)


def _checked(pair: tuple[str, float]) -> tuple[str, float]:
    token, logprob = pair
    if not -float("inf") < logprob <= ROUNDING:
        raise JudgeError(
            f"the endpoint gives {logprob} as the log-probability of {quoted(token)}, "
            "which is none; use the rubric judge or another endpoint"
        )
    return token, min(logprob, 0.0)
