"""Numbers as replies, against every continuation there is, one forward pass each."""

from __future__ import annotations

import pytest
import torch

from deltalens.errors import InputError
from deltalens.judge import ChatRequest
from deltalens.judge.local import LocalChat
from deltalens.judge.numerals import UNREAD, Numerals, whole_numbers
from helpers.number_tokenizers import KINDS, large, number_model, one_digit

DIGITS = list("0123456789")
NUMBERS = {str(number) for number in range(101)}
QUESTIONS = ["How well does it fit?", "Is it fine? " * 7, "0 to 100"]


def prompt_ids(tokenizer, question):
    messages = [{"role": "user", "content": question}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def next_probabilities(model, ids):
    with torch.no_grad():
        return model(torch.tensor([ids]), use_cache=False).logits[0, -1].double().softmax(-1)


def by_text(model, tokenizer, prompt):
    """P(the reply's text is n, and no digit follows), over all tokens and whatever they spell."""
    found = dict.fromkeys(range(101), 0.0)
    between = {token: within(tokenizer, token) for token in range(len(tokenizer))}
    blanks = {token for token, text in between.items() if text and not text.strip(" \t\r\n")}
    vocabulary = [t for t, text in between.items() if text.strip()[:1] in DIGITS or t in blanks]

    def visit(path, text, mass):
        p = next_probabilities(model, prompt + path).tolist()
        said = {token: tokenizer.decode([*path, token]) for token in vocabulary}
        grown = {token: new.strip() for token, new in said.items()}
        if text:
            longer = [t for t in vocabulary if grown[t] != text and is_longer(said[t], text)]
            found[int(text)] += mass * (1 - sum(p[token] for token in longer))
        for token, new in grown.items():
            blank = not path and token in blanks
            number = new in NUMBERS and new != text and is_longer(said[token], text)
            if (number or blank) and mass * p[token] > 1e-7:
                visit([*path, token], new, mass * p[token])

    visit([], "", 1.0)
    return found


def is_longer(said, text):
    said = said.lstrip()
    return said.startswith(text) and said[len(text) : len(text) + 1] in DIGITS


def within(tokenizer, token):
    """The token's text between letters, where no space is lost."""
    letter = tokenizer.get_vocab()["a"]
    return tokenizer.decode([letter, token, letter])[1:-1]


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_are_the_texts_own(kind):
    tokenizer = KINDS[kind]()
    space = "▁" if kind == "sentencepiece" else "Ġ"
    model = number_model(tokenizer, 1, ["9", "5", "1", "0", space, tokenizer.eos_token])
    chat = LocalChat(model, tokenizer, kind, batch_tokens=50)
    found = dict(chat.complete([ChatRequest.ask_number(text) for text in QUESTIONS]))
    for number, question in enumerate(QUESTIONS[:2]):
        truth = by_text(model, tokenizer, prompt_ids(tokenizer, question))
        got = dict(found[number].numbers)
        assert sum(truth.values()) > 0.05
        off = sum(abs(got.get(n, 0.0) - truth[n]) for n in range(101))
        assert off < 5 * UNREAD  # a space and three digits are four lengths; float32 the rest


def test_numbers_of_a_large_vocabulary():
    tokenizer = large()
    assert len(tokenizer) > 32_000
    model = number_model(tokenizer, 2, ["9", "5", "1", "0", "<|end|>"])
    blank = tokenizer.convert_tokens_to_ids(["Ġ", "Ċ", "ĉ", "č"])
    with torch.no_grad():
        model.lm_head.bias += 5.0 * (model.lm_head.bias > 0)
        model.lm_head.bias[blank] = -40.0
    prompt = prompt_ids(tokenizer, QUESTIONS[0])
    digits = [id_ for token, id_ in tokenizer.get_vocab().items() if "0" <= token[0] <= "9"]
    ((_, reply),) = LocalChat(model, tokenizer, "large").complete(
        [ChatRequest.ask_number(QUESTIONS[0])]
    )
    got = dict(reply.numbers)
    for number in (0, 5, 9, 10, 59, 95, 100):
        path, mass = tokenizer(str(number))["input_ids"], 1.0
        assert len(path) == len(str(number))
        for at, token in enumerate(path):
            mass *= float(next_probabilities(model, prompt + path[:at])[token])
        ends = 1 - float(next_probabilities(model, prompt + path)[digits].sum())
        assert got[number] == pytest.approx(mass * ends, rel=1e-5, abs=4 * UNREAD)


def test_a_table_by_hand():
    """Tokens of one digit; after nothing 9 or 1 or a space; ends as said."""
    tokenizer = one_digit()
    numerals = Numerals(tokenizer, len(tokenizer))
    nine, five, one, nought, space = tokenizer.convert_tokens_to_ids(["9", "5", "1", "0", "Ġ"])
    table = {
        (): {nine: 0.5, one: 0.3, space: 0.2},
        (nine,): {five: 0.9},
        (nine, five): {five: 0.25},  # 955
        (one,): {nought: 1.0},
        (one, nought): {nought: 0.5},
        (one, nought, nought): {},
        (space,): {nought: 0.5},
        (space, nought): {five: 1.0},  # " 05" is no number
    }
    asked = []

    def row(path):
        return [table[path].get(token, 0.0) for token in numerals.tokens]

    def after(places, added):
        asked.append(list(added))
        return torch.tensor([row(tuple(path)) for path in added], dtype=torch.float64)

    (found,) = whole_numbers(numerals, torch.tensor([row(())], dtype=torch.float64), after)
    got = {number: p for number, p in found if p}
    assert got == pytest.approx({9: 0.05, 95: 0.5 * 0.9 * 0.75, 10: 0.15, 100: 0.15})
    assert [len(paths) for paths in asked] == [3, 3, 1]


def test_nothing_is_read_for_what_is_hardly_possible():
    tokenizer = one_digit()
    numerals = Numerals(tokenizer, len(tokenizer))
    first = torch.zeros(2, len(numerals.tokens), dtype=torch.float64)

    def after(places, added):
        raise AssertionError

    assert whole_numbers(numerals, first, after)[0] == [(n, 0.0) for n in range(10)]


def test_a_tokenizer_without_digits_is_refused():
    class Words:
        all_special_ids = (0,)

        def get_vocab(self):
            return {"<s>": 0, "yes": 1}

        def decode(self, ids):
            return " ".join("yes" for _ in ids)

    with pytest.raises(InputError, match="has no digits; use the rubric judge"):
        Numerals(Words(), 2)
