"""Replies of any kind for each judge, and any text for what is printed."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from deltalens.judge import (
    Answer,
    ChatReply,
    ChatRequest,
    JudgeError,
    RubricJudge,
    ScaleJudge,
    Usage,
)
from deltalens.judge.label import OUTCOMES
from deltalens.judge.listed import numbers_listed, spelling
from deltalens.judge.wire import MalformedReply, read_listed, read_reply, reasons
from deltalens.storage.cells import cell, cell_text
from deltalens.trials.interpretation.reply import parse_reply
from deltalens.visible import visible, visible_json, visible_lines
from fuzz.mutate import mutated
from fuzz.targets import Outcome, is_inert

TOKEN = {
    "token": "90",
    "logprob": -0.2,
    "top_logprobs": [{"token": "90", "logprob": -0.2}, {"token": " 7", "logprob": -2.5}],
}
REPLY = {
    "id": "x",
    "object": "chat.completion",
    "created": 0,
    "model": "m",
    "choices": [
        {
            "index": 0,
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": "ANSWER: 4", "refusal": None},
            "logprobs": {"content": [TOKEN, {**TOKEN, "token": "."}]},
        }
    ],
    "usage": {"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14},
}
PIECES = (
    *("ANSWER:", "\\boxed{4}", "4", "5", "4/5", " out of 5", "**", "<think>", "</think>", "\n"),
    *("REFUSAL", "Score: ", "SATIRICAL/ABSURD", "{", "}", "[", '"', "NAME:", "EXPLANATION:"),
    *(
        "\x1b[2J",
        "\u202e",
        "\ud800",
        "\x00",
        "٤",
        "=",
        "-",
        "<|channel|>final<|message|>",
        "é",
        " ",
    ),
)


class Replying:
    """A chat model that answers every request with one reply."""

    name, address = "replying", ""

    def __init__(self, reply: ChatReply) -> None:
        self.usage = Usage()
        self._reply = reply

    def complete(self, requests: Sequence[ChatRequest]) -> Iterator[tuple[int, ChatReply]]:
        """The reply to each."""
        return ((number, self._reply) for number in range(len(requests)))


@dataclass(frozen=True)
class Saying:
    """Something that is said, and what is made of it."""

    name: str
    outcome: Callable[[random.Random], Outcome]


def text(rng: random.Random) -> str:
    """Pieces of replies and letters of all kinds."""
    letters = "".join(chr(rng.randrange(0x110000)) for _ in range(rng.randrange(4)))
    return "".join(rng.choice(PIECES) for _ in range(rng.randrange(9))) + letters


def _rubric(rng: random.Random) -> Outcome:
    ((_, verdict),) = RubricJudge(Replying(ChatReply(text(rng)))).grade([Answer("q", "a")])
    assert OUTCOMES[verdict.label] == verdict.outcome
    assert (verdict.score is not None) == verdict.label.isdigit()
    return "refused" if verdict.outcome == "unparsable" else "read"


def _scale(rng: random.Random) -> Outcome:
    """A score is a number of 0 … 100, of an endpoint's reply read by its own client."""
    from openai.types.chat import ChatCompletion

    content = mutated(json.dumps(REPLY).encode(), ".json", rng)
    usage = Usage()
    try:
        completion: Any = ChatCompletion.construct(**json.loads(content))
    except (TypeError, ValueError, RecursionError):
        return "refused"  # the client's own part, of which tests/judge/test_hostile.py has examples
    try:
        reply = read_reply(completion, usage)
        reasons(completion)
        listed = read_listed(completion)
        numbers = None if listed is None else numbers_listed(listed)
        spelling(listed or [])
        judge = ScaleJudge(Replying(ChatReply(reply.text, numbers)))
        ((_, verdict),) = judge.grade([Answer("q", "a")])
    except (JudgeError, MalformedReply):
        return "refused"
    assert usage.prompt_tokens >= 0
    assert verdict.score is None or 0 <= verdict.score <= 100
    assert verdict.score is None or math.isfinite(verdict.score)
    json.loads(verdict.raw).items()
    return "read"


def _names(rng: random.Random) -> Outcome:
    return "refused" if parse_reply(text(rng)) is None else "read"


def _printed(rng: random.Random) -> Outcome:
    """Nothing that is printed acts, and JSON and cells say what they did."""
    said = text(rng)
    assert is_inert(visible(said))
    assert all(is_inert(line) for line in visible_lines(said).split("\n"))
    document = json.dumps({"a": said}, ensure_ascii=False, indent=1)
    assert json.loads(visible_json(document)) == {"a": said}
    assert all(is_inert(line) for line in visible_json(document).split("\n"))
    assert cell_text(cell(said)) == visible(said)
    return "read"


SAYINGS = (
    Saying("reply to the rubric judge", _rubric),
    Saying("reply to the scale judge", _scale),
    Saying("reply that names a latent", _names),
    Saying("printed text", _printed),
)
