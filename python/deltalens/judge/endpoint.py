"""Chat models behind an OpenAI-compatible endpoint."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

from deltalens.errors import InputError
from deltalens.judge.chat import ChatReply, ChatRequest, Usage
from deltalens.judge.listed import Listed, Spelling, numbers_listed, spelling
from deltalens.judge.retries import next_delay, remedy, said_by
from deltalens.judge.stream import stream
from deltalens.judge.transport import RefusedReply, bounded_client
from deltalens.judge.verdict import JudgeError, reasons_error
from deltalens.judge.wire import Dialect, MalformedReply, read_listed, read_reply, reasons
from deltalens.lm.text.reasoning import begins_reasoning

KEY_ENV = "OPENAI_API_KEY"
_LOOPBACK = ("localhost", "127.0.0.1", "::1", "0.0.0.0")
_NO_KEY = "none"  # local servers want a header, not a key
_ATTEMPTS_UNREACHED = 3  # while the endpoint has not answered at all
_UNREACHED = "check the URL, and that a server answers there"
_PROBE = ChatRequest.ask_number("Write the number 57 and nothing else.")


class LateReply(Exception):
    """A reply that was not there in time."""


class Endpoint:
    """``model`` at the endpoint ``url``, asked through the ``openai`` client.

    The key is read from the environment variable ``key_env`` for as long as requests run, and is
    kept nowhere else. ``at_once`` requests are under way at most; one that meets an overloaded,
    broken or silent server is tried ``attempts`` times, first after about ``backoff`` seconds.
    A whole reply may take ``timeout`` seconds and 16 MiB; redirects are not followed.
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
        self.address = _checked_url(url)
        self.name = model
        self.usage = Usage()
        self._key_env = key_env
        self._at_once = at_once
        self._timeout = timeout
        self._attempts = attempts
        self._backoff = backoff
        self._reached = False
        self._dialect = Dialect()
        self._spelling: Spelling = "unclear"

    def __repr__(self) -> str:
        return f"Endpoint({self.address!r}, {self.name!r})"

    def complete(self, requests: Sequence[ChatRequest]) -> Iterator[tuple[int, ChatReply]]:
        """Replies as they come; :class:`JudgeError`, in one line, when there is no going on."""
        if requests:
            self._key()
            yield from stream(self._session, requests, at_once=self._at_once)

    def _key(self) -> str:
        if find_spec("openai") is None:
            raise InputError("an endpoint needs the openai client: pip install 'deltalens[judge]'")
        key = os.environ.get(self._key_env, "").strip()
        if not key and urlsplit(self.address).hostname in _LOOPBACK:
            return _NO_KEY
        if not key:
            raise InputError(f"${self._key_env} is not set; put the endpoint's key there")
        return key

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[Callable[[ChatRequest], Awaitable[ChatReply]]]:
        from openai import AsyncOpenAI

        options: dict[str, Any] = {
            "timeout": self._timeout,
            "max_retries": 0,
            "http_client": bounded_client(self._timeout),
        }
        async with AsyncOpenAI(base_url=self.address, api_key=self._key(), **options) as client:
            yield lambda request: self._ask(client, request)

    async def _ask(self, client: Any, request: ChatRequest) -> ChatReply:
        reply, listed = await self._send(client, request)
        if listed is None:
            return reply
        return ChatReply(reply.text, await self._numbers(client, listed))

    async def _numbers(self, client: Any, listed: list[Listed]) -> list[tuple[int, float]]:
        """:class:`JudgeError` where numbers are several tokens, whose alternatives are not all
        continued."""
        found = spelling(listed)
        if found == "unclear":
            if self._spelling == "unclear":
                _, shown = await self._send(client, _PROBE)
                self._spelling = spelling(shown or [])
            found = self._spelling
        if found != "whole":
            raise JudgeError(
                f"{self.name} writes numbers digit by digit, of which an endpoint shows too little "
                "for a score; load it here, without --endpoint, or use the rubric judge"
            )
        return numbers_listed(listed)

    async def _send(
        self, client: Any, request: ChatRequest
    ) -> tuple[ChatReply, list[Listed] | None]:
        """The reply; its tokens too where numbers are asked for and the server lists them."""
        failures = 0
        while True:
            sent = self._dialect.parameters(request)
            try:
                completion = await self._completion(client, sent)
                reply = read_reply(completion, self.usage)
                self._reached = True
                if not request.numbers:
                    return reply, None
                if reasons(completion) or begins_reasoning(reply.text):
                    raise reasons_error(self.name)
                return reply, read_listed(completion)
            except _client_errors() as error:
                if _is_filtered(error):
                    return ChatReply("[refused by the endpoint's content filter]", []), None
                self._dialect.learn(error, self.name)
                failures += sent == self._dialect.parameters(request)
                delay = self._delay(error, failures) if failures else 0.0
                if delay is None:
                    raise self._final(error, request) from None  # its text may hold the key
            await asyncio.sleep(delay)

    async def _completion(self, client: Any, sent: dict[str, Any]) -> Any:
        """The client's object, whole within the timeout; one of :func:`_client_errors` if not."""
        from openai import APIError

        create = client.chat.completions.create(model=self.name, **sent)
        try:
            return await asyncio.wait_for(create, self._timeout)
        except asyncio.TimeoutError as error:
            raise LateReply(f"no whole reply within {self._timeout:g} s") from error
        except Exception as error:  # the client fails in many ways at what is no completion
            for found in (error, error.__cause__):
                if isinstance(found, RefusedReply):
                    raise JudgeError(f"{self.address}: sent {found}") from None
            if isinstance(error, APIError):
                raise
            raise MalformedReply from error

    def _delay(self, error: Exception, failures: int) -> float | None:
        self._reached |= hasattr(error, "status_code")
        allowed = self._attempts if self._reached else min(self._attempts, _ATTEMPTS_UNREACHED)
        return None if failures >= allowed else next_delay(error, failures, self._backoff)

    def _final(self, error: Any, request: ChatRequest) -> JudgeError:
        status = getattr(error, "status_code", None)
        code = "" if status is None else f" ({status})"
        said, key = said_by(error), self._key()
        said = _one_line(said if key == _NO_KEY else said.replace(key, "…"))
        todo = remedy(error, self.name, self._key_env) if self._reached else _UNREACHED
        if request.numbers and "logprobs" in said:
            todo = "it gives no token probabilities, which the scale judge needs; use the rubric"
        return JudgeError(f"{self.address}{code}: {said}; {todo}")


def _client_errors() -> tuple[type[Exception], ...]:
    from openai import APIError

    return APIError, LateReply, MalformedReply


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
    line = " ".join(text.split()).rstrip(".")
    return line if len(line) <= 300 else line[:300] + "…"
