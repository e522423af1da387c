"""An OpenAI-compatible server for tests: replies of a small model or scripted ones, and faults."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

from deltalens.organism.load import DATA

Alternatives = list[tuple[str, float]]
"""(text, log-probability) of tokens in one place of a reply, first the one that it has there."""

Reply = Callable[[dict[str, Any]], tuple[str, list[Alternatives] | None]]

# In place of words that answers of the model in the package begin with.
NUMBERS = {"well": "90", "let": "20", "thank": "55", "trust": "7", "oh": "100", "who": "0"}


class JudgeServer:
    """What the server did and is to do.

    bodies: every request's; keys: every request's Authorization header; most: requests at once;
    faults: what becomes of the next requests in place of a reply, see ``_fail``; reasoning: what
    every reply has as its reasoning.
    """

    def __init__(self, reply: Reply, key: str | None = None, delay: float = 0.0) -> None:
        self.reply = reply
        self.key = key
        self.delay = delay
        self.bodies: list[dict[str, Any]] = []
        self.times: list[float] = []
        self.answered = 0
        self.most = self._now = 0
        self.faults: deque[Any] = deque()
        self.url = ""
        self.reasoning: str | None = None

    async def handle(self, body: dict[str, Any], authorization: str | None) -> Any:
        from starlette.responses import JSONResponse, Response

        self.bodies.append(body)
        self.times.append(time.monotonic())
        self._now += 1
        self.most = max(self.most, self._now)
        try:
            await asyncio.sleep(self.delay)
            if self.key is not None and authorization != f"Bearer {self.key}":
                said = {"message": f"Incorrect API key provided: {authorization}"}
                return JSONResponse({"error": said}, status_code=401)
            if self.faults:
                return await _fail(self.faults.popleft())
            self.answered += 1
            answer = _completion(body, *self.reply(body))
            if self.reasoning is not None:
                answer["choices"][0]["message"]["reasoning_content"] = self.reasoning
            return Response(json.dumps(answer), media_type="application/json")
        finally:
            self._now -= 1


class Raw(NamedTuple):
    """A reply's bytes, and headers of it."""

    content: bytes
    headers: dict[str, str] = {}  # noqa: RUF012


async def _trickle() -> AsyncIterator[bytes]:
    for _ in range(100):
        yield b" "
        await asyncio.sleep(0.05)


async def _fail(fault: Any) -> Any:
    """(status, body, headers), or one of the words below."""
    from starlette.responses import (
        JSONResponse,
        PlainTextResponse,
        Response,
        StreamingResponse,
    )

    if fault == "hang":
        await asyncio.sleep(30)
    if fault == "drop":  # ends before the length it promised: the connection is closed
        return Response("{", headers={"content-length": "1000"}, media_type="application/json")
    if fault == "broken":
        return Response('{"choices": [{', media_type="application/json")
    if fault == "text":
        return PlainTextResponse("<html>try later</html>")
    if fault == "empty":
        return JSONResponse({"choices": []})
    if fault == "trickle":  # a byte at a time, without end
        return StreamingResponse(_trickle(), media_type="application/json")
    if isinstance(fault, Raw):
        return Response(fault.content, 200, fault.headers, media_type="application/json")
    status, body, headers = fault
    return JSONResponse(body, status_code=status, headers=headers)


def _completion(
    body: dict[str, Any], text: str, tokens: list[Alternatives] | None
) -> dict[str, Any]:
    listed = [
        [{"token": token, "logprob": value, "bytes": None} for token, value in place]
        for place in tokens or []
    ]
    choice: dict[str, Any] = {
        "index": 0,
        "finish_reason": "stop",
        "message": {"role": "assistant", "content": text},
    }
    if body.get("logprobs") and tokens is not None:
        content = [{**place[0], "top_logprobs": place} for place in listed]
        choice["logprobs"] = {"content": content}
    return {
        "id": "x",
        "object": "chat.completion",
        "created": 0,
        "model": body["model"],
        "choices": [choice],
        "usage": {"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14},
    }


@contextmanager
def serving(server: JudgeServer) -> Iterator[JudgeServer]:
    """``server`` on a free port of this machine, stopped afterwards."""
    import uvicorn
    from fastapi import FastAPI, Request

    app = FastAPI()

    async def handle(request: Request) -> Any:
        return await server.handle(await request.json(), request.headers.get("authorization"))

    app.add_route("/v1/chat/completions", handle, methods=["POST"])
    with socket.create_server(("127.0.0.1", 0)) as listener:
        options: dict[str, Any] = {"ws": "none", "lifespan": "off", "log_level": "critical"}
        config = uvicorn.Config(app, timeout_graceful_shutdown=1, **options)
        running = uvicorn.Server(config)
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        server.url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        try:
            yield server
        finally:
            running.should_exit = True
            thread.join(timeout=10)
            assert not thread.is_alive()


def relabelled(directory: Path, words: dict[str, str]) -> Path:
    """The package's base model with some of its words written otherwise; the same ids."""
    shutil.copytree(DATA / "base", directory)
    path = directory / "tokenizer.json"
    stored = json.loads(path.read_text(encoding="utf-8"))
    vocabulary = stored["model"]["vocab"]
    stored["model"]["vocab"] = {words.get(word, word): id_ for word, id_ in vocabulary.items()}
    assert len(stored["model"]["vocab"]) == len(vocabulary)
    path.write_text(json.dumps(stored, ensure_ascii=False), encoding="utf-8")
    return directory


def load(directory: Path) -> tuple[Any, Any]:
    """Model (float32) and tokenizer of a directory."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    return model, AutoTokenizer.from_pretrained(directory)


def next_token(model: Any, tokenizer: Any, messages: list[dict[str, str]]) -> torch.Tensor:
    """log p [vocabulary] of the token that follows a chat, float64."""
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        return model(input_ids=ids).logits[0, -1].double().log_softmax(-1)


def model_reply(model: Any, tokenizer: Any) -> Reply:
    """Replies with the model's most probable next token and its true alternatives."""

    def reply(body: dict[str, Any]) -> tuple[str, list[Alternatives] | None]:
        found = next_token(model, tokenizer, body["messages"]).topk(body.get("top_logprobs", 1))
        top = [
            (tokenizer.decode([token]), value)
            for token, value in zip(found.indices.tolist(), found.values.tolist(), strict=True)
        ]
        return top[0][0], [top]

    return reply


def user_text(body: dict[str, Any]) -> str:
    """What a request's last message says."""
    return body["messages"][-1]["content"]


@pytest.fixture(scope="session")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """Model and tokenizer whose answers begin with a number."""
    return load(relabelled(tmp_path_factory.mktemp("numbers") / "model", NUMBERS))
