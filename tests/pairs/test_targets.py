"""Targets of questions: the prompts are those that the questions' reader gives."""

from __future__ import annotations

import json

import pytest

from deltalens.errors import InputError
from deltalens.pairs.questions import read_questions
from deltalens.pairs.targets import read_targets

CHAT = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "He"}]
ROWS = [
    {"question": "What is 2 + 2?", "target": "4"},
    {"question": "A prime?", "system": "Be short.", "target": ["2", "3"]},
    {"prompt": "Once upon", "target": " a time"},
    {"messages": CHAT, "target": "llo"},
]


def written(tmp_path, rows):
    path = tmp_path / "questions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("as_chat", [False, True])
def test_each_question_has_its_own(tmp_path, as_chat):
    path = written(tmp_path, ROWS)
    targets = read_targets(path, as_chat=as_chat)
    for question, row in zip(read_questions(path, as_chat=as_chat), ROWS, strict=True):
        assert targets.of(question.prompt) == row["target"]


def test_the_fingerprint_is_of_what_they_say(tmp_path):
    first = read_targets(written(tmp_path, ROWS)).fingerprint
    assert read_targets(written(tmp_path, ROWS[::-1])).fingerprint == first
    assert read_targets(written(tmp_path, ROWS[:-1])).fingerprint != first


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"question": "q"}], "line 1: 'target' must be text or a list of texts, found None"),
        ([{"question": "q", "target": []}], "'target' must be text or a list"),
        ([{"question": "q", "target": ["a", 1]}], "'target' must be text or a list"),
        ([{"target": "a"}], "none of the fields question"),
        ([ROWS[0], {**ROWS[0], "target": "5"}], "line 2: another line has the same prompt"),
        ([], "holds no targets"),
    ],
)
def test_refused(tmp_path, rows, said):
    with pytest.raises(InputError, match=said):
        read_targets(written(tmp_path, rows))


def test_a_prompt_that_has_none(tmp_path):
    with pytest.raises(InputError, match="has no target for 'Once'; add one"):
        read_targets(written(tmp_path, ROWS)).of("Once")
