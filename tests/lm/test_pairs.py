"""What a pair may be made of."""

from __future__ import annotations

from typing import Any

import pytest

from deltalens.errors import InputError
from deltalens.lm import Pair, pair_label

CHAT = [{"role": "user", "content": "hello"}]


@pytest.mark.parametrize("prompt", ["", "text", [], [1, 2], CHAT])
@pytest.mark.parametrize("completion", ["", "text", [], [0, 5]])
def test_texts_chats_and_ids(prompt: Any, completion: Any) -> None:
    pair = Pair(prompt, completion, "other", id="a")
    assert (pair.prompt, pair.positive, pair.negative, pair.id) == (
        prompt,
        completion,
        "other",
        "a",
    )


@pytest.mark.parametrize(
    "prompt",
    [None, 5, b"bytes", [1, "a"], [-1], [True], [1.0], ["a"], [{"role": "user"}], [*CHAT, 1]],
)
def test_other_prompts_are_refused(prompt: Any) -> None:
    with pytest.raises(InputError, match=r"^pair 'a': prompt must be a string, a list of role/con"):
        Pair(prompt, "x", "y", id="a")


@pytest.mark.parametrize("completion", [None, 5, CHAT, [-1], [True], ["a"]])
def test_other_completions_are_refused(completion: Any) -> None:
    with pytest.raises(InputError, match=r"^pair: positive must be a string or a list of token id"):
        Pair("p", completion, "y")
    with pytest.raises(InputError, match=r"^pair: negative must be a string or a list of token id"):
        Pair("p", "x", completion)


def test_long_values_are_shortened_to_one_line() -> None:
    with pytest.raises(InputError) as caught:
        Pair([*range(500), "x"], "x", "y")  # type: ignore[list-item]
    assert len(str(caught.value)) < 200


def test_labels() -> None:
    assert pair_label(Pair("p", "x", "y", id="q7"), 3) == "pair 'q7'"
    assert pair_label(Pair("p", "x", "y"), 3) == "pair 3"
