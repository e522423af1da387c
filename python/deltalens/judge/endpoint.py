"""Chat models behind an OpenAI-compatible endpoint."""

from __future__ import annotations

import asyncio
import os
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

from deltalens.errors import InputError
from deltalens.judge.chat import ChatReply, ChatRequest, Usage
from deltalens.judge.retries import MalformedReply, next_delay, remedy, said_by
from deltalens.judge.stream import stream
from deltalens.judge.verdict import JudgeError

KEY_ENV = "OPENAI_API_KEY"
_LOOPBACK = ("localhost", "127.0.0.1", "::1", "0.0.0.0")
_NO_KEY = "none"  # local servers want a header, not a key
_ATTEMPTS_UNREACHED = 3  # while the endpoint has not answered at all


class Endpoint:
    """``model`` at the endpoint ``url``, asked through the ``openai`` client.

    The key is read from the environment variable ``key_env`` for as long as requests run, and is
    kept nowhere else. ``at_once`` requests are under way at most; one that meets an overloaded,
    broken or silent server is tried ``attempts`` times, first after about ``backoff`` seconds.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        key_env: str = KEY_ENV,
        at_once: int = 16,
        timeout: float = 120.0,
        attempts: int = 8,
        backoff: float = 1.0,
    ) -> None:
        for name, value in (("at_once", at_once), ("attempts", attempts)):
            if value < 1:
                raise InputError(f"{name} must be at least 1, got {value}")
        self._url = _checked_url(url)
        self.name = model
        self.usage = Usage()
        self._key_env = key_env
        self._at_once = at_once
        self._timeout = timeout
        self._attempts = attempts
        self._backoff = backoff
        self._reached = False
        self._dialect = _Dialect()

    def __repr__(self) -> str:
        return f"Endpoint({self._url!r}, {self.name!r})"

    def complete(self, requests: Sequence[ChatRequest]) -> Iterator[tuple[int, ChatReply]]:
        """Replies as they come; :class:`JudgeError`, in one line, when there is no going on."""
        if requests:
            self._key()
            yield from stream(self._session, requests, at_once=self._at_once)

    def _key(self) -> str:
        if find_spec("openai") is None:
            raise InputError("an endpoint needs the openai client: pip install 'deltalens[judge]'")
        key = os.environ.get(self._key_env, "").strip()
        if not key and urlsplit(self._url).hostname in _LOOPBACK:
            return _NO_KEY
        if not key:
            raise InputError(f"${self._key_env} is not set; put the endpoint's key there")
        return key

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[Callable[[ChatRequest], Awaitable[ChatReply]]]:
        from openai import AsyncOpenAI

        options: dict[str, Any] = {"timeout": self._timeout, "max_retries": 0}
        async with AsyncOpenAI(base_url=self._url, api_key=self._key(), **options) as client:
            yield lambda request: self._ask(client, request)

    async def _ask(self, client: Any, request: ChatRequest) -> ChatReply:
        failures = 0
        while True:
            sent = self._dialect.parameters(request)
            try:
                reply = read_reply(
                    await client.chat.completions.create(model=self.name, **sent), self.usage
                )
                self._reached = True
                return reply
            except _client_errors() as error:
                if _is_filtered(error):
                    return ChatReply("[refused by the endpoint's content filter]", [])
                self._dialect.learn(error, self.name)
                failures += sent == self._dialect.parameters(request)
                delay = self._delay(error, failures) if failures else 0.0
                if delay is None:
                    raise self._final(error, request) from None  # its text may hold the key
            await asyncio.sleep(delay)

    def _delay(self, error: Exception, failures: int) -> float | None:
        self._reached |= hasattr(error, "status_code")
        allowed = self._attempts if self._reached else min(self._attempts, _ATTEMPTS_UNREACHED)
        return None if failures >= allowed else next_delay(error, failures, self._backoff)

    def _final(self, error: Any, request: ChatRequest) -> JudgeError:
        status = getattr(error, "status_code", None)
        code = "" if status is None else f" ({status})"
        said, key = said_by(error), self._key()
        said = _one_line(said if key == _NO_KEY else said.replace(key, "…"))
        todo = remedy(error, self.name, self._key_env)
        if request.top_logprobs and "logprobs" in said:
            todo = "it gives no token probabilities, which the scale judge needs; use the rubric"
        return JudgeError(f"{self._url}{code}: {said}; {todo}")


class _Dialect:
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
    return ChatReply(_writable(str(text)), top or None)


def _writable(text: str) -> str:
    """Without halves of characters, which JSON can carry and no file can."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _client_errors() -> tuple[type[Exception], ...]:
    from openai import APIError

    return APIError, MalformedReply, ValueError  # ValueError: a body that is no JSON


def _is_filtered(error: Any) -> bool:
    return getattr(error, "code", None) in ("content_filter", "content_policy_violation")


def _checked_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError(
            "the endpoint must be an http(s) URL such as http://localhost:8000/v1, "
            f"got {_redacted(url)!r}"
        )
    if parts.username or parts.password or parts.query:
        raise InputError("the endpoint's URL must hold no key; put it in the environment")
    return url.rstrip("/")


def _redacted(url: str) -> str:
    return url.split("@")[-1].split("?")[0]


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 300 else line[:300] + "…"
