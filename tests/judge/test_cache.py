from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import threading
import time

import pytest

from deltalens.errors import InputError
from deltalens.judge import Answer, ChatReply, ChatRequest, Endpoint, ReplyCache, RubricJudge, Usage
from deltalens.judge.cache import CACHE_FILE
from helpers.judge_server import (
    JudgeServer,
    serving,
    user_text,
)

KEY = "sk-not-to-be-kept-9876543210"
ANSWERS = [Answer("a question", f"answer {number}") for number in range(40)]


def grade(body):
    return ("ANSWER: 5" if "7" in user_text(body).split("ANSWER]")[1] else "ANSWER: 1"), None


@pytest.fixture
def server():
    with serving(JudgeServer(grade)) as running:
        yield running


def judge(server, directory, model="m", **options):
    chat = Endpoint(server.url, model, backoff=0.01)
    return RubricJudge(chat, cache=ReplyCache(directory), **options)


class Counting:
    """Counts up, so that asking again shows."""

    name, address = "counting", ""

    def __init__(self):
        self.usage = Usage()
        self.asked = 0

    def complete(self, requests):
        for number, request in enumerate(requests):
            self.asked += 1
            found = [(5, 0.6), (100, 0.3)] if request.numbers else None
            yield number, ChatReply(f"reply {self.asked} \ud800 é", found)


def test_a_second_run_sends_nothing(server, tmp_path):
    first = dict(judge(server, tmp_path).grade(ANSWERS))
    assert len(server.bodies) == 40
    again = judge(server, tmp_path)
    assert dict(again.grade(ANSWERS)) == first
    assert len(server.bodies) == 40
    assert (again.chat.usage.requests, again.chat.usage.cached) == (0, 40)
    assert sum(v.outcome == "shown" for v in first.values()) == 4  # 7, 17, 27, 37


def test_another_model_version_or_request_is_asked(server, tmp_path):
    list(judge(server, tmp_path).grade(ANSWERS[:1]))
    list(judge(server, tmp_path, model="n").grade(ANSWERS[:1]))
    list(judge(server, tmp_path, max_tokens=9).grade(ANSWERS[:1]))
    list(judge(server, tmp_path, rubric="1 2 3 4 5").grade(ANSWERS[:1]))
    list(judge(server, tmp_path).grade(ANSWERS[1:2]))
    assert len(server.bodies) == 5
    chat, cache = Counting(), ReplyCache(tmp_path)
    requests = [ChatRequest.ask("q", 1)]
    for version in ("a", "b", "a"):
        list(cache.complete(chat, requests, version=version))
    assert chat.asked == 2


def test_equal_requests_are_sent_once(server, tmp_path):
    found = dict(judge(server, tmp_path).grade([ANSWERS[7], ANSWERS[0], ANSWERS[7]]))
    assert len(server.bodies) == 2
    assert found[0] == found[2] != found[1]


def test_replies_come_back_as_they_were(tmp_path):
    chat, cache = Counting(), ReplyCache(tmp_path)
    requests = [ChatRequest.ask_number("q \ud800"), ChatRequest.ask("q", 1)]
    first = dict(cache.complete(chat, requests, version="v"))
    assert dict(cache.complete(chat, requests, version="v")) == first
    assert first[0].numbers == [(5, 0.6), (100, 0.3)]
    assert first[1].numbers is None


def test_several_processes_may_share_it(tmp_path):
    requests = [ChatRequest.ask(str(number), 1) for number in range(30)]

    def work():
        list(ReplyCache(tmp_path).complete(Counting(), requests, version="v"))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    last = Counting()
    assert len(list(ReplyCache(tmp_path).complete(last, requests, version="v"))) == 30
    assert last.asked == 0


VICTIM = """
import sys
from deltalens.judge import Answer, Endpoint, ReplyCache, RubricJudge
url, directory = sys.argv[1:]
answers = [Answer("a question", f"answer {number}") for number in range(40)]
judge = RubricJudge(Endpoint(url, "m", at_once=4), cache=ReplyCache(directory))
for number, verdict in judge.grade(answers):
    print(number, flush=True)
"""


def test_killed_midway_nothing_is_asked_twice(server, tmp_path):
    server.delay = 0.05
    argv = [sys.executable, "-c", VICTIM, server.url, str(tmp_path)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        for _ in range(10):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    time.sleep(0.3)
    with sqlite3.connect(tmp_path / CACHE_FILE) as store:
        (kept,) = store.execute("SELECT count(*) FROM replies").fetchone()
    store.close()
    before = len(server.bodies)
    assert 10 <= kept < 40
    assert before - kept <= 8  # four were under way, four may have been answered but not kept
    assert len(dict(judge(server, tmp_path).grade(ANSWERS))) == 40
    assert len(server.bodies) - before == 40 - kept


def test_the_key_is_not_in_it(server, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server.key = KEY
    list(judge(server, tmp_path).grade(ANSWERS[:3]))
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files
    assert not any(KEY.encode() in path.read_bytes() for path in files)


def test_a_damaged_file_is_said(server, tmp_path):
    (tmp_path / CACHE_FILE).write_bytes(b"this is not a database at all" * 40)
    with pytest.raises(InputError, match=f"cannot use .*{CACHE_FILE}.*delete the file"):
        list(judge(server, tmp_path).grade(ANSWERS[:1]))


def test_a_directory_that_cannot_be_made_is_said(server, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write into"):
        list(judge(server, tmp_path / "file" / "below").grade(ANSWERS[:1]))
