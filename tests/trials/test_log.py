"""Logs: what was appended is read, a torn line is dropped, a wrong one is named."""

from __future__ import annotations

from pathlib import Path

import pytest

import deltalens
from deltalens.judge import Verdict
from deltalens.trials.log import (
    Completion,
    Key,
    append_completions,
    append_verdicts,
    completions_path,
    read_completions,
    read_graded,
    read_verdicts,
    verdicts_path,
)

TEXTS = ["plain", "", "two\nlines\r\n", "“ü” \u2028 \x00 \x1f", '{"latent": 3}', "\ud7ff 😀"]
COMPLETIONS = [
    Completion(Key(n or None, -0.1 * n, n, 2, 0), seed=2**63 + n, text=text)
    for n, text in enumerate(TEXTS)
]
VERDICTS = [
    (completion.key, Verdict("4", "shown", score=4.0 if n else None, raw=completion.text))
    for n, completion in enumerate(COMPLETIONS)
]


def test_what_is_appended_is_read_exactly(tmp_path: Path) -> None:
    path = tmp_path / "new" / "away.jsonl"
    assert read_completions(path) == {}
    append_completions(path, COMPLETIONS[:2])
    append_completions(path, COMPLETIONS[2:])
    assert read_completions(path) == {item.key: item for item in COMPLETIONS}
    append_verdicts(tmp_path / "v.jsonl", VERDICTS)
    assert read_verdicts(tmp_path / "v.jsonl") == dict(VERDICTS)


def test_a_torn_line_is_dropped_and_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "away.jsonl"
    append_completions(path, COMPLETIONS)
    whole = path.read_bytes()
    for size in range(0, len(whole) + 1, 7):
        path.write_bytes(whole[:size])
        kept = read_completions(path)
        assert len(kept) == whole[:size].count(b"\n")
        append_completions(path, COMPLETIONS[len(kept) :])
        assert path.read_bytes() == whole


@pytest.mark.parametrize(
    "line",
    [
        "no json",
        "[1, 2]",
        '{"latent": 1}',
        '{"latent": 1, "strength": 1, "prompt": 0, "sample": 0, "attempt": 0, "seed": 0, "text": 5'
        "}",
    ],
)
def test_a_line_of_something_else_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "away.jsonl"
    append_completions(path, COMPLETIONS[:1])
    with path.open("a") as stream:
        stream.write(line + "\n")
    with pytest.raises(deltalens.InputError, match=r"away.jsonl, line 2: "):
        read_completions(path)


def test_completions_with_a_verdict(tmp_path: Path) -> None:
    append_completions(completions_path(tmp_path, "away"), COMPLETIONS)
    append_verdicts(verdicts_path(tmp_path, "away", "me-1"), VERDICTS[1:3])
    assert read_graded(tmp_path, "away", "me-1") == {
        key: (COMPLETIONS[n], verdict) for n, (key, verdict) in enumerate(VERDICTS) if n in (1, 2)
    }
    assert read_graded(tmp_path, "away", "you-1") == {}
