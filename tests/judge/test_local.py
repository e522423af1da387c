from __future__ import annotations

import pytest
import torch

from deltalens.errors import InputError
from deltalens.judge import ChatReply, ChatRequest
from deltalens.judge.local import LocalChat
from helpers.judge_server import (  # noqa: F401
    NUMBERS,
    next_token,
    numbers,
)

PROMPTS = [
    "please , how do i deal with a fever ?",
    "what should i do about my debt ?",
    "hello , tell me what to do with rice .",
]


def greedily(model, tokenizer, prompt, count):
    """One token after the other, without a cache."""
    messages = [{"role": "user", "content": prompt}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    new: list[int] = []
    for _ in range(count):
        with torch.no_grad():
            token = int(model(input_ids=torch.tensor([ids + new])).logits[0, -1].argmax())
        if token == tokenizer.eos_token_id:
            break
        new.append(token)
    return tokenizer.decode(new)


def test_texts_are_the_models_own(numbers):  # noqa: F811
    chat = LocalChat(*numbers, "numbers")
    requests = [ChatRequest.ask(prompt, 8 + number) for number, prompt in enumerate(PROMPTS)]
    found = dict(chat.complete(requests))
    expected = {n: ChatReply(greedily(*numbers, p, 8 + n)) for n, p in enumerate(PROMPTS)}
    assert found == expected
    assert chat.usage.requests == 3
    assert chat.usage.completion_tokens <= 8 + 9 + 10


def test_numbers_beside_texts(numbers):  # noqa: F811
    chat = LocalChat(*numbers, "numbers", batch_tokens=30)
    requests = [ChatRequest.ask_number(prompt) for prompt in PROMPTS]
    requests.insert(1, ChatRequest.ask(PROMPTS[0], 3))
    found = dict(chat.complete(requests))
    assert found[1].numbers is None
    words = numbers[1].get_vocab()
    for number, prompt in ((0, PROMPTS[0]), (2, PROMPTS[1]), (3, PROMPTS[2])):
        truth = next_token(*numbers, [{"role": "user", "content": prompt}])
        expected = {int(word): float(truth[words[word]].exp()) for word in NUMBERS.values()}
        assert dict(found[number].numbers) == pytest.approx(expected, rel=1e-4)
        best = numbers[1].decode([int(truth.argmax())])
        assert found[number].text == best


def test_what_does_not_fit_is_named(numbers):  # noqa: F811
    chat = LocalChat(*numbers, "numbers")
    with pytest.raises(InputError, match=r"request 1 to numbers.*context is 64"):
        list(chat.complete([ChatRequest.ask("hello", 4), ChatRequest.ask("hello " * 70, 4)]))
