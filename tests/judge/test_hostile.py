"""Endpoints that send what no chat completion is: one line, in little memory and time."""

from __future__ import annotations

import gzip
import json
import time
import tracemalloc

import pytest

from deltalens.judge import (
    Answer,
    ChatRequest,
    Endpoint,
    JudgeError,
    ReplyCache,
    RubricJudge,
    ScaleJudge,
)
from deltalens.judge.scale import expected_score
from helpers.judge_server import JudgeServer, Raw, serving

REQUEST = [ChatRequest.ask("hello", 5)]
NUMBER = [ChatRequest.ask_number("hello")]


@pytest.fixture
def server():
    with serving(JudgeServer(lambda body: ("ANSWER: 1", None))) as running:
        yield running


def endpoint(server, **options):
    return Endpoint(server.url, "m", **{"backoff": 0.01, "attempts": 1, **options})


def refused(server, fault, requests=REQUEST, **options) -> str:
    server.faults.append(fault)
    with pytest.raises(JudgeError) as error:
        list(endpoint(server, **options).complete(requests))
    message = str(error.value)
    assert "\n" not in message
    assert len(message) < 1000
    return message


def completion(content='"ANSWER: 1"', **more) -> bytes:
    further = "".join(f', "{name}": {value}' for name, value in more.items())
    return b'{"choices": [{"message": {"content": %s}%s}]}' % (content.encode(), further.encode())


def test_a_compressed_reply_is_not_unpacked(server):
    body = gzip.compress(b" " * (1 << 30), 1)[: 2 << 20]
    tracemalloc.start()
    message = refused(server, Raw(body, {"content-encoding": "gzip"}))
    assert tracemalloc.get_traced_memory()[1] < 64 << 20
    tracemalloc.stop()
    assert "compressed" in message


def test_a_reply_without_end_is_left_at_the_timeout(server):
    start = time.monotonic()
    assert "no whole reply within 0.5 s" in refused(server, "trickle", timeout=0.5)
    assert time.monotonic() - start < 3


def test_a_late_reply_is_asked_for_again(server):
    server.faults.append("trickle")
    ((_, reply),) = endpoint(server, timeout=0.5, attempts=2).complete(REQUEST)
    assert reply.text == "ANSWER: 1"


def test_a_long_reply_is_left(server):
    assert "over 16 MiB" in refused(server, Raw(b" " * (17 << 20)))


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed(server, status):
    with serving(JudgeServer(lambda body: ("ANSWER: 5", None))) as other:
        fault = (status, {}, {"location": f"{other.url}/chat/completions"})
        assert "redirection" in refused(server, fault)
        assert not other.bodies


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 200_000,
        b'{"choices": ' + b"[" * 5000 + b"]" * 5000 + b"}",
        b'{"usage": ' + b"9" * 6000 + b"}",
        b"\xff\xfe\x00",
        b"null",
        b"5",
        b'"text"',
        b"[]",
        b'{"choices": 5}',
        b'{"choices": [[]]}',
        b'{"choices": [null]}',
        b'{"choices": {"a": 1}}',
        completion("5"),
        completion("[1, 2]"),
        completion('{"a": {}}'),
    ],
)
def test_what_is_no_completion_is_said(server, content):
    assert "no chat completion" in refused(server, Raw(content))


@pytest.mark.parametrize("usage", ['{"prompt_tokens": 1e400, "completion_tokens": -5}', "[1]", "7"])
def test_a_nonsensical_count_of_tokens_counts_nothing(server, usage):
    server.faults.append(Raw(b'{"usage": %s, ' % usage.encode() + completion()[1:]))
    chat = endpoint(server)
    try:
        list(chat.complete(REQUEST))
    except JudgeError as error:
        assert "no chat completion" in str(error)  # noqa: PT017
    assert (chat.usage.prompt_tokens, chat.usage.completion_tokens) == (0, 0)


def with_logprob(value: str) -> Raw:
    token = '{"token": "50", "logprob": %s, "top_logprobs": [{"token": "50", "logprob": %s}]}'
    return Raw(completion('"50"', logprobs='{"content": [%s]}' % (token % (value, value))))


@pytest.mark.parametrize(
    "value", ["Infinity", "-Infinity", "NaN", "5000", "1e400", "0.5", "9" * 400, "[]", "null"]
)
def test_what_is_no_log_probability_gives_no_score(server, value):
    server.faults.extend([with_logprob(value)] * 2)
    with pytest.raises(JudgeError) as error:
        list(ScaleJudge(endpoint(server, at_once=1)).grade([Answer("q", "a")]))
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500


@pytest.mark.parametrize(
    "numbers",
    [
        [(50, float("inf"))],
        [(50, float("nan"))],
        [(50, -0.5), (60, 0.9)],
        [(50, 1.5)],
        [(101, 0.5)],
        [(-1, 0.5)],
    ],
)
def test_what_are_no_probabilities_give_no_score(numbers):
    with pytest.raises(JudgeError, match="as probabilities of numbers"):
        expected_score(numbers)


@pytest.mark.parametrize(
    "headers",
    [
        {"retry-after": "Mon, 99 Foo 99999999999 99:99:99"},
        {"retry-after": "1e999"},
        {"retry-after": "-5"},
        {"retry-after-ms": "nan"},
        {"retry-after": "x" * 5000},
    ],
)
def test_nonsense_about_when_to_come_back(server, headers):
    server.faults.append((503, {"error": {"message": "later"}}, headers))
    ((_, reply),) = endpoint(server, attempts=2).complete(REQUEST)
    assert reply.text == "ANSWER: 1"


def test_an_error_that_is_no_text(server):
    deep = json.loads("[" * 500 + "]" * 500)
    message = refused(server, (400, {"error": {"message": {"a": [1] * 9999, "b": deep}}}, {}))
    assert "(400)" in message


def test_another_endpoint_of_the_model_is_asked_itself(server, tmp_path):
    answers = [Answer("q", "a")]
    with serving(JudgeServer(lambda body: ("ANSWER: 5", None))) as other:
        for url, label in ((server.url, "1"), (other.url, "5"), (server.url, "1")):
            judge = RubricJudge(Endpoint(url, "m"), cache=ReplyCache(tmp_path))
            assert [verdict.label for _, verdict in judge.grade(answers)] == [label]
        assert (len(server.bodies), len(other.bodies)) == (1, 1)
