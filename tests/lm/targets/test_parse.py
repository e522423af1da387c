"""Targets by their names, and what is refused."""

from __future__ import annotations

import pytest

from deltalens.errors import InputError
from deltalens.lm.targets.objectives import Answers, Weighted, Written
from deltalens.lm.targets.parse import is_function, parse_target
from deltalens.lm.targets.target import LOSS, Side
from helpers.tokenizers import llama_2, llama_3

SIDE = Side("pair 'x': positive", [5, 6], [7, 8, 9], None)


def test_the_default_is_the_loss_itself():
    assert parse_target("loss", "mean") is LOSS
    assert LOSS.objective(None, SIDE) is None


def test_first_tokens():
    found = parse_target("first:002", "sum")
    assert found.name == "first:2"
    assert found.objective(None, SIDE) == Weighted((1, 1, 0))
    assert parse_target("first:3", "sum").objective(None, SIDE) is None  # all of them


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "target must be one of loss, first:8"),
        ("losses", "got 'losses'"),
        ("first:", "got 'first:'"),
        ("first:0", "give the number of first tokens"),
        ("first:-1", "give the number of first tokens"),
        ("first:²", "give the number of first tokens"),
        ("text:", "got 'text:'"),
        ("regex:(", "is no regular expression"),
        ("logits:yes|no", "give two answers as JSON strings"),
        ('logits:"yes"', "give two answers as JSON strings"),
        ('logits:"a"|"b"|"c"', "give two answers as JSON strings"),
        ("none/such.py:loss", "cannot read none/such.py"),
    ],
)
def test_what_is_no_target_is_refused(name, message):
    with pytest.raises(InputError, match=message.replace("(", r"\(").replace("²", ".")):
        parse_target(name, "sum")


@pytest.mark.parametrize("name", ['logits:"a"|"b"', 'probabilities:"a"|"b"'])
def test_a_mean_of_no_tokens_is_refused(name):
    with pytest.raises(InputError, match="loss='mean' has no meaning with the target"):
        parse_target(name, "mean")


def test_answers_may_hold_bars_and_escapes():
    found = parse_target(r'logits:" a|\"b\u00e9"|"|"', "sum")
    assert found.answers == (' a|"bé', "|")


@pytest.mark.parametrize("made", [llama_2, llama_3])
def test_answers_are_their_first_tokens_after_the_completion(made):
    tokenizer = made()

    def ids(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    prompt, both = ids("How are you?"), ids("How are you? I am fine.")
    side = Side("pair: positive", prompt, both[len(prompt) :], None)
    found = parse_target('logits:" Sure I will"|"0"', "sum").objective(tokenizer, side)
    expected = tuple(
        ids("How are you? I am fine." + answer)[len(both)] for answer in (" Sure", "0")
    )
    assert found == Answers(expected, probabilities=False)
    with pytest.raises(InputError, match="positive: both answers of"):
        parse_target('logits:" Sure I"|" Sure no"', "sum").objective(tokenizer, side)


def test_weights_of_tokens_that_are_not_there_are_refused():
    with pytest.raises(InputError, match="positive_weights has 2 numbers for 3 tokens"):
        LOSS.objective(None, SIDE._replace(weights=[1.0, 2.0]))
    with pytest.raises(InputError, match="positive_weights have no meaning with the target"):
        parse_target('logits:"a"|"b"', "sum").objective(
            llama_3(), SIDE._replace(weights=[1.0, 2.0, 3.0])
        )


def test_text_needs_a_tokenizer():
    with pytest.raises(InputError, match="the target text:a needs a tokenizer"):
        parse_target("text:a", "sum").objective(None, SIDE)


def test_functions_are_known_by_what_their_file_says(tmp_path):
    path = tmp_path / "own.py"
    path.write_text("def f(logits, ids):\n    return logits.sum()\n")
    found, again = (parse_target(f"{path}:f", "sum") for _ in range(2))
    assert (found.name, found.code) == (again.name, again.code)
    assert found.name == "own.py:f"
    assert isinstance(found.objective(None, SIDE), Written)
    path.write_text("def f(logits, ids):\n    return 2 * logits.sum()\n")
    assert parse_target(f"{path}:f", "sum").code != found.code


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def f(:", "cannot be run: SyntaxError"),
        ("raise KeyError('x')", "cannot be run: KeyError"),
        ("f = 3", "has no function 'f'"),
        ("", "has no function 'f'"),
    ],
)
def test_files_without_the_function_are_refused(source, message, tmp_path):
    path = tmp_path / "own.py"
    path.write_text(source)
    with pytest.raises(InputError, match=message):
        parse_target(f"{path}:f", "sum")


def test_which_names_run_code():
    assert is_function("a/b.py:f")
    assert not any(map(is_function, ("loss", "text:a.py:f", 'logits:"a.py:f"|"b"', "first:8")))
