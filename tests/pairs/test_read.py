from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest

from deltalens.errors import InputError, Unfinished
from deltalens.lm import Pair
from deltalens.pairs import (
    read_pairs,
    write_pairs,
)

USER = {"role": "user", "content": "how?"}
GOOD = {"prompt": "how?", "positive": " badly", "negative": " well"}


def said(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


@pytest.fixture
def write(tmp_path: Path):
    def write_rows(*rows: object) -> Path:
        path = tmp_path / "data.jsonl"
        lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
        path.write_bytes(b"\n".join(lines))
        return path

    return write_rows


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (GOOD, Pair("how?", " badly", " well")),
        (GOOD | {"id": 7, "source": "x"}, Pair("how?", " badly", " well", "7")),
        (
            {"messages": [USER], "positive": "bad", "negative": [said("good")]},
            Pair([USER], "bad", "good"),
        ),
        (
            {"prompt": [1, 2], "positive": [3], "negative": [4, 5], "id": "a"},
            Pair([1, 2], [3], [4, 5], "a"),
        ),
        (
            {"messages": [USER, said("x"), USER], "positive": "a", "negative": "b"},
            Pair([USER, said("x"), USER], "a", "b"),
        ),
    ],
)
def test_native_rows(write, row, expected):
    assert read_pairs(write(row)) == [expected]


@pytest.mark.parametrize(
    ("row", "prompt"),
    [
        ({"prompt": "how?", "chosen": "good", "rejected": "bad"}, "how?"),
        ({"prompt": [USER], "chosen": [said("good")], "rejected": [said("bad")]}, [USER]),
        ({"chosen": [USER, said("good")], "rejected": [USER, said("bad")]}, [USER]),
        (
            {
                "prompt": "how?",
                "messages": [USER, said("good")],
                "chosen": [USER, said("good")],
                "rejected": [USER, said("bad")],
            },
            [USER],
        ),
        (
            {
                "chosen": "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant:good",
                "rejected": "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant:bad",
            },
            "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant:",
        ),
    ],
)
def test_preference_rows(write, row, prompt):
    pairs = read_pairs(write(row), positive="rejected", negative="chosen")
    assert pairs == [Pair(prompt, "bad", "good")]


def test_named_fields(write):
    row = {"question": "how?", "prompt": "no", "bad": "x", "good": "y"}
    pairs = read_pairs(write(row), prompt_field="question", positive="bad", negative="good")
    assert pairs == [Pair("how?", "x", "y")]


def test_null_message_keys_are_dropped_and_prefills_kept(write):
    messages = [USER | {"name": "n", "tool_calls": None}, said("I will")]
    row = {"messages": messages, "positive": "a", "negative": "b"}
    assert read_pairs(write(row)) == [Pair([USER | {"name": "n"}, said("I will")], "a", "b")]


def test_blank_lines_byte_order_mark_and_line_separators(write):
    row = GOOD | {"positive": "a\u2028b"}
    first = b"\xef\xbb\xbf" + json.dumps(row, ensure_ascii=False).encode() + b"\r"
    pairs = read_pairs(write(first, b"  ", GOOD, b""))
    assert [pair.positive for pair in pairs] == ["a\u2028b", " badly"]


CONVERSATIONS = {"positive": [USER, said("a")], "negative": [USER, said("b")]}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (b"{'prompt': 1}", "not JSON"),
        (b'{"prompt": "a"', "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[1]", "JSON list"),
        (b'{"prompt": "\xff"}', "not UTF-8"),
        ({"prompt": "a", "positive": "b"}, r"'negative' is missing \(fields: prompt, positive\)"),
        (GOOD | {"negative": None}, "'negative' is null"),
        ({"positive": "b", "negative": "c"}, "no field 'prompt' or 'messages'"),
        (
            {"prompt": "a", "chosen": "b", "rejected": "c"},
            "'positive' is missing .* name the fields",
        ),
        (GOOD | {"messages": [USER]}, "both 'prompt' and 'messages'"),
        (GOOD | {"prompt": ""}, "'prompt' is empty"),
        (GOOD | {"prompt": 3}, "'prompt' must be text"),
        (GOOD | {"prompt": {"role": "user"}}, "'prompt' must be text"),
        (GOOD | {"prompt": ["a"]}, "'prompt' must be text"),
        (GOOD | {"prompt": [True]}, "'prompt' must be text"),
        (GOOD | {"prompt": [-1]}, "'prompt' must be text"),
        (GOOD | {"prompt": [{"role": "user"}]}, "without a string 'content'"),
        (GOOD | {"positive": ""}, "'positive' is an empty completion"),
        (GOOD | {"negative": []}, "'negative' is an empty completion"),
        (GOOD | {"negative": [said("")]}, "'negative' is an empty completion"),
        (GOOD | {"negative": " badly"}, "identical"),
        (GOOD | {"positive": 1.5}, "'positive' must be text"),
        (GOOD | {"positive": [1.5]}, "'positive' must be text"),
        (
            GOOD | {"positive": [said("a"), said("b")]},
            "one assistant message, found assistant, ass",
        ),
        (GOOD | {"positive": "\ud800"}, "surrogate"),
        (GOOD | {"id": 1.5}, "'id' must be a string"),
        (CONVERSATIONS | {"negative": "b"}, "only one of"),
        (CONVERSATIONS | {"negative": [USER, USER, said("b")]}, "differ before their last"),
        (CONVERSATIONS | {"negative": [USER, USER]}, "one assistant message, found user"),
        (CONVERSATIONS | {"negative": [USER, said("a")]}, "identical"),
        (CONVERSATIONS | {"positive": [USER], "negative": [USER]}, "must be a list of role"),
    ],
)
def test_bad_rows_name_file_and_line(write, row, message):
    path = write(GOOD, b"", row, GOOD)
    with pytest.raises(InputError, match=message) as caught:
        read_pairs(path)
    assert str(caught.value).startswith(f"{path}, line 3: ")
    assert "\n" not in str(caught.value)


def test_duplicate_ids(write):
    path = write(GOOD | {"id": "1"}, GOOD, GOOD | {"id": 1})
    with pytest.raises(InputError, match="line 3: id '1' occurs twice"):
        read_pairs(path)


def test_empty_and_missing_files(write, tmp_path):
    with pytest.raises(InputError, match="holds no pairs"):
        read_pairs(write(b"\n"))
    with pytest.raises(InputError, match=r"cannot read .*nowhere.jsonl"):
        read_pairs(tmp_path / "nowhere.jsonl")
    with pytest.raises(InputError, match=r"cannot read .*pairs.jsonl"):
        read_pairs(tmp_path)


def test_written_pairs_read_back_from_file_and_run_directory(tmp_path):
    pairs = [
        Pair("é\u2028?", " x", " y", "1"),
        Pair([USER], "a\nb", "c"),
        Pair([1, 2], [3], [4], "ü"),
        Pair([USER, said("so")], " ", "\n"),
    ]
    write_pairs(tmp_path / "pairs.jsonl", pairs)
    assert read_pairs(tmp_path / "pairs.jsonl") == pairs
    assert read_pairs(tmp_path) == pairs
    assert [path.name for path in tmp_path.iterdir()] == ["pairs.jsonl"]


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "pairs.jsonl"
    write_pairs(path, [Pair("a", "b", "c")])
    before = path.read_bytes()

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("deltalens.storage.atomic.os.fsync", full)
    with pytest.raises(Unfinished, match=r"cannot write .*pairs.jsonl: No space left"):
        write_pairs(path, [Pair("a", "b" * 100_000, "c")])
    assert path.read_bytes() == before
    assert [found.name for found in tmp_path.iterdir()] == ["pairs.jsonl"]
