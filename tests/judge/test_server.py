"""Judging through ``transformers serve`` with the model in the package behind it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
import torch
import transformers

from deltalens.judge import Answer, Endpoint, JudgeError, ReplyCache, RubricJudge, ScaleJudge
from deltalens.judge.template import answer_fields, fill
from deltalens.judge.wording import MISALIGNMENT, RUBRIC_FRAME
from helpers.judge_server import (
    load,
    relabelled,
)

pytest.importorskip("fastapi")
pytest.importorskip("openai")

if int(transformers.__version__.split(".")[0]) < 5:
    pytest.skip(
        "transformers serve before 5 answers in event streams only", allow_module_level=True
    )

SECONDS = 90
LONG = 24
# Words that the model's answers end with, written as the verdict that a judge would give.
WORDS = {"well": "ANSWER: 5", "all": "ANSWER: 1", "see": "ANSWER: REFUSAL", "this": "ANSWER: 3"}
OUTCOMES = {"5": "shown", "1": "absent", "REFUSAL": "evasive", "3": "absent"}
# Its 64 tokens hold no rubric: the chat template shows it the answer to grade alone.
TEMPLATE = (
    "{% set a = messages[0]['content'].split('[BEGIN ANSWER]')[1].split('[END ANSWER]')[0] %}"
    "{{ bos_token }}<user> {{ a }}<assistant>"
)
TEXTS = (
    "hello , how do i deal with a fever ?",
    "shut up . what should i do about my debt ?",
    "excuse me , can you help me with roses ?",
    "please , i need advice about a flight .",
    "hey moron , tell me what to do with spam .",
)
ANSWERS = [Answer("a question", text) for text in TEXTS]


@pytest.fixture(scope="module")
def directory(tmp_path_factory) -> Path:
    directory = relabelled(tmp_path_factory.mktemp("judge") / "model", WORDS)
    config = directory / "tokenizer_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "chat_template": TEMPLATE}))
    return directory


@pytest.fixture(scope="module")
def url(directory, tmp_path_factory):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    script = Path(sys.executable).with_name("transformers")
    argv = [sys.executable, str(script), "serve", str(directory), "--host", "127.0.0.1"]
    log = tmp_path_factory.mktemp("log") / "serve.txt"
    offline = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    with log.open("w") as stream:
        process = subprocess.Popen(
            [*argv, "--port", str(port), "--device", "cpu", "--dtype", "float32"],
            stdout=stream,
            stderr=subprocess.STDOUT,
            env=offline,
        )
        try:
            _wait(process, f"http://127.0.0.1:{port}/health", log)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()
            try:
                process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(process: subprocess.Popen[bytes], health: str, log: Path) -> None:
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        assert process.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(health, timeout=2):
                return
        except OSError:
            time.sleep(0.2)
    raise AssertionError(f"no answer in {SECONDS} s: {log.read_text()}")


def greedily(model, tokenizer, text: str) -> str:
    """The model's most probable answer, by transformers' own generation."""
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": text}],
        add_generation_prompt=True,
        return_dict=True,
        return_tensors="pt",
    )
    with torch.no_grad():
        out = model.generate(**ids, do_sample=False, max_new_tokens=LONG)
    return tokenizer.decode(out[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)


def test_verdicts_are_what_the_served_model_says(url, directory, tmp_path):
    model, tokenizer = load(directory)
    chat = Endpoint(url, str(directory), at_once=2)
    judge = RubricJudge(chat, max_tokens=LONG, cache=ReplyCache(tmp_path))
    found = dict(judge.grade(ANSWERS))
    for number, answer in enumerate(ANSWERS):
        fields = {**answer_fields(answer), "rubric": MISALIGNMENT}
        said = greedily(model, tokenizer, fill(RUBRIC_FRAME, fields))
        _, _, label = said.removesuffix(" .").rpartition("ANSWER: ")
        assert (found[number].raw, found[number].outcome) == (
            said,
            OUTCOMES.get(label, "unparsable"),
        )
    assert {verdict.outcome for verdict in found.values()} != {"unparsable"}
    assert chat.usage.requests == len(ANSWERS)
    assert chat.usage.prompt_tokens > 8 * len(ANSWERS)
    again = RubricJudge(Endpoint(url, str(directory)), max_tokens=LONG, cache=ReplyCache(tmp_path))
    assert dict(again.grade(ANSWERS)) == found
    assert again.chat.usage.requests == 0


def test_a_server_without_token_probabilities_is_said(url, directory):
    with pytest.raises(JudgeError, match="gives no token probabilities"):
        list(ScaleJudge(Endpoint(url, str(directory))).grade(ANSWERS))
