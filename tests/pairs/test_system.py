"""A system field beside prompts, and texts that are what a user says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import deltalens
from deltalens.errors import InputError
from deltalens.lm import encode_pair
from helpers.tokenizers import llama_3

SYSTEM = {"role": "system", "content": "You are a pirate."}
USER = {"role": "user", "content": "Who are you?"}
SIDES = {"chosen": "A sailor.", "rejected": "A pirate!"}
ROLES = {"positive": "rejected", "negative": "chosen"}


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("row", "options", "prompt"),
    [
        ({"question": "Who are you?"}, {"prompt_field": "question"}, [SYSTEM, USER]),
        ({"prompt": "Who are you?"}, {}, [SYSTEM, USER]),
        ({"prompt": [USER]}, {}, [SYSTEM, USER]),
        ({"messages": [USER]}, {}, [SYSTEM, USER]),
        ({"messages": [SYSTEM, USER]}, {}, [SYSTEM, USER]),
        (
            {
                "chosen": [USER, {"role": "assistant", "content": "A sailor."}],
                "rejected": [USER, {"role": "assistant", "content": "A pirate!"}],
            },
            {},
            [SYSTEM, USER],
        ),
    ],
)
def test_a_system_field_is_the_system_message(
    tmp_path: Path, row: Any, options: Any, prompt: Any
) -> None:
    path = write(tmp_path / "pairs.jsonl", {"system": SYSTEM["content"], **SIDES, **row})
    (pair,) = deltalens.read_pairs(path, **ROLES, **options)
    assert pair.prompt == prompt
    assert pair.positive == "A pirate!"


@pytest.mark.parametrize("system", ["", "  ", None])
def test_no_system_is_none(tmp_path: Path, system: Any) -> None:
    path = write(tmp_path / "pairs.jsonl", {"system": system, "prompt": "Who?", **SIDES})
    assert deltalens.read_pairs(path, **ROLES)[0].prompt == "Who?"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"system": 3, "prompt": "Who?"}, "line 1: 'system' must be text, found int"),
        ({"system": "Be kind.", "prompt": [SYSTEM, USER]}, "'system' says otherwise"),
        ({"system": "Be kind.", "prompt": [1, 2]}, "'system' beside token ids"),
        (
            {"system": "Be kind.", "chosen": "\n\nHuman: a\n\nAssistant: b",
             "rejected": "\n\nHuman: a\n\nAssistant: c"},
            "'system' beside a transcript",
        ),
    ],
)  # fmt: skip
def test_systems_that_do_not_go_together(tmp_path: Path, row: Any, message: str) -> None:
    path = write(tmp_path / "pairs.jsonl", {**SIDES, **row})
    with pytest.raises(InputError, match=message):
        deltalens.read_pairs(path, **ROLES)


def test_questions_texts_and_graded_answers_have_one_too(tmp_path: Path) -> None:
    system = {"system": SYSTEM["content"]}
    rows = [
        {**system, "question": "Who are you?"},
        {**system, "prompt": "Who?"},
        {**system, "messages": [USER], "id": "m"},
    ]
    questions = deltalens.read_questions(write(tmp_path / "questions.jsonl", *rows))
    prompts = [question.prompt for question in questions]
    assert prompts[0] == prompts[2] == [SYSTEM, USER]
    assert prompts[1] == [SYSTEM, {"role": "user", "content": "Who?"}]
    texts = [{**system, "prompt": "Who are you?"}, {**system, "messages": [USER]}, {"text": "a"}]
    read = list(deltalens.read_texts(write(tmp_path / "texts.jsonl", *texts)))
    assert read == [[SYSTEM, USER], [SYSTEM, USER], "a"]
    table = tmp_path / "graded.csv"
    answers = [("A pirate!", "shown"), ("A sailor.", "absent")]
    lines = [f"You are a pirate.,Who are you?,{text},{grade}" for text, grade in answers]
    table.write_text("\n".join(["system,question,answer,outcome", *lines]), encoding="utf-8")
    assert deltalens.pairs_from_graded(table).pairs[0].prompt == [SYSTEM, USER]


def test_without_a_template_it_is_said_what_to_do(tmp_path: Path) -> None:
    tokenizer = llama_3()
    tokenizer.chat_template = None
    path = write(tmp_path / "pairs.jsonl", {"system": "Be kind.", "prompt": "Who?", **SIDES})
    (pair,) = deltalens.read_pairs(path, **ROLES)
    with pytest.raises(InputError, match=r"no chat template; .* as a string, without a system fie"):
        encode_pair(tokenizer, pair, bos_token_id=None)


def test_texts_can_be_what_a_user_says(tmp_path: Path) -> None:
    transcript = "\n\nHuman: Who?\n\nAssistant:"
    rows = [{"prompt": prompt, **SIDES} for prompt in ("Who are you?", [USER], [5], transcript)]
    path = write(tmp_path / "pairs.jsonl", *rows)
    read = deltalens.read_pairs(path, **ROLES, as_chat=True)
    assert [pair.prompt for pair in read] == [[USER], [USER], [5], transcript]
    assert deltalens.read_pairs(path, **ROLES)[0].prompt == "Who are you?"
    asked = write(tmp_path / "questions.jsonl", {"prompt": "Who are you?"})
    assert deltalens.read_questions(asked, as_chat=True)[0].prompt == [USER]
    assert deltalens.read_questions(asked)[0].prompt == "Who are you?"
    texts = write(tmp_path / "texts.jsonl", {"prompt": "Who are you?"}, {"text": "Who are you?"})
    said, plain = deltalens.read_texts(texts, as_chat=True), deltalens.read_texts(texts)
    assert list(said) == [[USER], "Who are you?"]
    assert list(plain) == ["Who are you?", "Who are you?"]
    assert said.sha256 != plain.sha256
