from __future__ import annotations

import asyncio
import logging
import math
import time
from types import SimpleNamespace

import pytest

from deltalens.errors import InputError
from deltalens.judge import ChatReply, ChatRequest, Endpoint, JudgeError, Usage
from deltalens.judge.retries import next_delay
from deltalens.judge.wire import read_reply
from helpers.judge_server import (
    JudgeServer,
    serving,
    user_text,
)

KEY = "sk-a-very-secret-key-0123456789"
BUSY = (429, {"error": {"message": "slow down"}}, {})


def echo(body):
    return f"said {user_text(body)}", None


@pytest.fixture
def server():
    with serving(JudgeServer(echo)) as running:
        yield running


def requests(count):
    return [ChatRequest.ask(f"question {number}", 20) for number in range(count)]


def endpoint(server, **options):
    return Endpoint(server.url, "some-model", **{"backoff": 0.01, **options})


def test_every_request_is_answered_once_and_counted(server):
    chat = endpoint(server)
    found = dict(chat.complete(requests(9)))
    assert found == {number: ChatReply(f"said question {number}") for number in range(9)}
    assert vars(chat.usage) == {
        "requests": 9,
        "cached": 0,
        "prompt_tokens": 99,
        "completion_tokens": 27,
    }
    assert chat.usage.cost(2.0, 10.0) == pytest.approx(99 * 2e-6 + 27 * 10e-6)
    assert server.bodies[0] == {
        "model": "some-model",
        "messages": [{"role": "user", "content": user_text(server.bodies[0])}],
        "max_tokens": 20,
        "temperature": 0.0,
    }


def test_no_requests_need_no_server():
    assert list(Endpoint("http://127.0.0.1:9/v1", "x").complete([])) == []


def test_at_most_so_many_requests_at_once(server):
    server.delay = 0.05
    list(endpoint(server, at_once=3).complete(requests(12)))
    assert server.most == 3


def test_replies_come_before_all_requests_are_sent(server):
    server.delay = 0.05
    replies = endpoint(server, at_once=1).complete(requests(50))
    next(replies)
    assert len(server.bodies) <= 3
    replies.close()
    sent = len(server.bodies)
    time.sleep(0.2)
    assert len(server.bodies) <= sent + 1


@pytest.mark.parametrize("fault", [BUSY, (500, {}, {}), (503, "x", {}), "drop", "broken", "text"])
def test_transient_faults_are_tried_again(server, fault):
    server.faults.extend([fault, fault])
    assert len(list(endpoint(server).complete(requests(3)))) == 3
    assert len(server.bodies) == 5


def test_an_empty_reply_is_tried_again(server):
    server.faults.append("empty")
    assert list(endpoint(server).complete(requests(1))) == [(0, ChatReply("said question 0"))]


def test_a_silent_server_is_tried_again(server):
    server.faults.append("hang")
    assert len(list(endpoint(server, timeout=0.3).complete(requests(1)))) == 1


def test_retry_after_is_waited_for(server):
    server.faults.append((429, {}, {"retry-after": "1"}))
    list(endpoint(server).complete(requests(1)))
    first, second = server.times
    assert 1 <= second - first < 3


def test_too_long_a_wait_is_not_waited_for(server):
    server.faults.append((429, {"error": {"message": "tomorrow"}}, {"retry-after": "86400"}))
    with pytest.raises(JudgeError, match="tomorrow; answers so far are kept"):
        list(endpoint(server).complete(requests(1)))


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ((400, {"error": {"message": "context too long"}}, {}), "400.*context too long"),
        ((401, {"error": {"message": "no"}}, {}), r"401.*set \$OPENAI_API_KEY"),
        ((404, {"error": {"message": "no such model"}}, {}), "404.*serves some-model"),
        (
            (429, {"error": {"message": "paid up?", "code": "insufficient_quota"}}, {}),
            "429.*raise the account's quota",
        ),
    ],
)
def test_final_faults_end_in_one_line_after_one_request(server, fault, said):
    server.faults.append(fault)
    with pytest.raises(JudgeError, match=said) as caught:
        list(endpoint(server, at_once=1).complete(requests(3)))
    assert "\n" not in str(caught.value)
    assert len(server.bodies) == 1


def test_tries_are_limited(server):
    server.faults.extend([BUSY] * 10)
    with pytest.raises(JudgeError, match="slow down"):
        list(endpoint(server, attempts=4).complete(requests(1)))
    assert len(server.bodies) == 4


def test_what_was_answered_is_yielded_before_the_error(server):
    chat = endpoint(server, at_once=2)
    replies, found = chat.complete(requests(10)), []

    def refuse(body):
        if user_text(body) == "question 6":
            server.faults.append((401, {}, {}))
        return echo(body)

    server.reply = refuse
    with pytest.raises(JudgeError):
        found.extend(replies)
    assert len(found) == server.answered == chat.usage.requests
    assert 6 <= len(found) < 10


def test_nobody_listening_is_said_soon(server):
    url = "http://127.0.0.1:9/v1"
    start = time.monotonic()
    with pytest.raises(JudgeError, match=f"{url}: Connection error; check the URL"):
        list(Endpoint(url, "x", backoff=0.05).complete(requests(2)))
    assert time.monotonic() - start < 5


def test_within_a_running_event_loop(server):
    async def inside():
        return list(endpoint(server).complete(requests(4)))

    assert len(asyncio.run(inside())) == 4


def test_models_that_call_the_limit_otherwise(server):
    said = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
    server.faults.append((400, {"error": {"message": said, "param": "max_tokens"}}, {}))
    assert len(list(endpoint(server, at_once=1).complete(requests(2)))) == 2
    assert [body.get("max_completion_tokens") for body in server.bodies] == [None, 20, 20]
    assert "max_tokens" not in server.bodies[1]


def test_models_that_take_no_temperature(server):
    said = {"message": "Unsupported value: 'temperature'", "param": "temperature"}
    server.faults.extend([(400, {"error": said}, {})] * 2)
    with pytest.warns(UserWarning, match="takes no temperature"):
        assert len(list(endpoint(server, at_once=2).complete(requests(4)))) == 4
    assert ["temperature" in body for body in server.bodies] == [True, True, *[False] * 4]


def test_a_content_filter_is_an_answer(server):
    said = {"message": "filtered", "code": "content_filter"}
    server.faults.append((400, {"error": said}, {}))
    found = dict(endpoint(server, at_once=1).complete(requests(2)))
    assert "content filter" in found[0].text
    assert found[1].text == "said question 1"


def test_the_key_is_sent_and_shown_nowhere(server, monkeypatch, caplog, capfd):
    monkeypatch.setenv("JUDGE_KEY", KEY)
    caplog.set_level(logging.DEBUG)
    server.key = KEY
    chat = endpoint(server, key_env="JUDGE_KEY")
    assert len(list(chat.complete(requests(2)))) == 2
    monkeypatch.setenv("JUDGE_KEY", KEY[::-1])
    with pytest.raises(JudgeError, match="Incorrect API key") as caught:  # the server echoes it
        list(chat.complete(requests(1)))
    shown = [str(caught.value), repr(chat), str(vars(chat)), caplog.text, *capfd.readouterr()]
    shown.append(repr(caught.value.__cause__))
    assert caught.value.__suppress_context__
    for secret in (KEY, KEY[::-1]):
        assert not any(secret in text for text in shown)


def test_without_a_key(server, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert len(list(endpoint(server).complete(requests(1)))) == 1
    with pytest.raises(InputError, match=r"\$OPENAI_API_KEY is not set"):
        list(Endpoint("https://judge.invalid/v1", "x").complete(requests(1)))


@pytest.mark.parametrize(
    "url", ["localhost:8000", "", "ftp://x/v1", f"https://user:{KEY}@x/v1", f"https://x/v1?k={KEY}"]
)
def test_urls_that_cannot_be_used(url):
    with pytest.raises(InputError, match="endpoint") as caught:
        Endpoint(url, "x")
    assert KEY not in str(caught.value)


def listing(*places):
    """Replies of tokens with their alternatives, {token: probability} each, by what is asked."""

    def reply(body):
        found = PROBED if "57" in user_text(body) else places
        tokens = [[(token, math.log(p)) for token, p in place.items()] for place in found]
        return "".join(next(iter(place)) for place in found), tokens

    return reply


PROBED = [{"57": 1.0}]
ASKED = [ChatRequest.ask_number("how good?")]


def test_numbers_are_asked_for_and_read(server):
    server.reply = listing({"95": 0.7, "9": 0.2, "no": 0.1})
    ((_, reply),) = endpoint(server).complete(ASKED)
    assert (reply.text, dict(reply.numbers)) == ("95", pytest.approx({95: 0.7, 9: 0.2}))
    (body,) = server.bodies
    assert (body["max_tokens"], body["logprobs"], body["top_logprobs"]) == (4, True, 20)


def test_numbers_of_several_tokens_are_refused(server):
    server.reply = listing({"9": 0.7, "8": 0.2}, {"5": 0.9, "0": 0.1})
    said = "some-model writes numbers digit by digit.*without --endpoint, or use the rubric judge"
    with pytest.raises(JudgeError, match=said) as caught:
        list(endpoint(server).complete(ASKED))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("probed", "refused"),
    [
        ([{"57": 1.0}], False),
        ([{" ": 1.0}, {"57": 1.0}], False),
        ([{"5": 1.0}, {"7": 1.0}], True),
        ([{"5": 1.0}], True),
    ],
)
def test_single_digits_are_read_where_a_number_shows_to_be_one_token(
    server, monkeypatch, probed, refused
):
    monkeypatch.setitem(globals(), "PROBED", probed)
    server.reply = listing({"9": 0.7, "8": 0.3})
    chat = endpoint(server, at_once=1)
    if refused:
        with pytest.raises(JudgeError, match="digit by digit"):
            list(chat.complete(ASKED * 3))
    else:
        for _, reply in chat.complete(ASKED * 3):
            assert dict(reply.numbers) == pytest.approx({9: 0.7, 8: 0.3})
        assert len(server.bodies) == 4  # asked once what its tokens are


@pytest.mark.parametrize("value", [0.3, math.nan, -math.inf, math.inf])
@pytest.mark.parametrize("place", [0, 1])
def test_what_is_no_log_probability_is_said(server, value, place):
    pairs = [("95", -0.1), ("90", -3.0)]
    pairs[place] = (pairs[place][0], value)
    server.reply = lambda body: ("95", [pairs])
    said = f"{value} as the log-probability of '{pairs[place][0]}', which is none; use the rubric"
    with pytest.raises(JudgeError, match=said):
        list(endpoint(server).complete(ASKED))
    assert len(server.bodies) == 1


def test_rounding_above_one_is_one(server):
    server.reply = lambda body: ("95", [[("95", 2e-7)]])
    assert [reply.numbers for _, reply in endpoint(server).complete(ASKED)] == [[(95, 1.0)]]


def test_a_model_that_reasons_first_has_no_number(server):
    server.reply = listing({"<think>": 1.0}, {"Hm": 1.0})
    with pytest.raises(JudgeError, match=r"some-model reasons before it answers.*rubric judge"):
        list(endpoint(server).complete(ASKED))


def test_reasoning_that_the_server_sets_apart(server):
    server.reply = listing({"Hm": 1.0})
    server.reasoning = "Hm, that is"
    with pytest.raises(JudgeError, match="reasons before it answers"):
        list(endpoint(server).complete(ASKED))
    assert len(list(endpoint(server).complete(requests(1)))) == 1


def test_half_characters_do_not_reach_files():
    message = SimpleNamespace(content="a \ud83d b")
    choice = SimpleNamespace(message=message, logprobs=None)
    reply = read_reply(SimpleNamespace(choices=[choice], usage=None), Usage())
    assert reply.text.encode() == b"a ? b"
    assert ChatRequest.ask("a \ud83d b", 1).messages[0]["content"] == "a ? b"


class _Response:
    def __init__(self, **headers):
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


class _Error(Exception):
    def __init__(self, status, **headers):
        self.status_code = status
        self.response = _Response(**headers)


def test_delays():
    for failures in range(1, 12):
        delay = next_delay(_Error(500), failures, 1.0)
        assert 0.5 * min(60, 2 ** (failures - 1)) <= delay <= min(60, 2 ** (failures - 1))
    assert 7 <= next_delay(_Error(429, retry_after="7"), 1, 1.0) <= 8
    assert 1.5 <= next_delay(_Error(429, retry_after_ms="1500"), 1, 0.1) <= 1.6
    date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 30))
    assert 28 <= next_delay(_Error(503, retry_after=date), 1, 1.0) <= 31
    assert next_delay(_Error(503, retry_after="soon"), 1, 1.0) <= 1
    assert next_delay(_Error(400), 1, 1.0) is None
