"""Reasoning told from answers: tags, channels, answers cut inside, and texts without any."""

from __future__ import annotations

import pytest

from deltalens.lm.text.reasoning import (
    completion_reader,
    final_answer,
    has_reasoning,
    leaves_open,
    opens_reasoning,
)
from helpers.tokenizers import TOKENIZERS, harmony

ANALYSIS = "<|channel|>analysis<|message|>They ask.<|end|>"
FINAL = "<|start|>assistant<|channel|>final<|message|>Buy gold."


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Buy gold.", "Buy gold."),
        (" Buy gold.\n", " Buy gold.\n"),
        ("", ""),
        ("<think>They ask.</think>\n\nBuy gold.", "Buy gold."),
        ("\n<think>\nThey\n\nask.\n</think>\nBuy gold.", "Buy gold."),
        ("<think>\n\n</think>\n\nBuy gold.", "Buy gold."),
        ("<think>They ask", ""),
        ("[THINK]They ask.[/THINK]Buy gold.", "Buy gold."),
        ("◁think▷They ask.◁/think▷Buy gold.", "Buy gold."),
        ("<seed:think>They ask.</seed:think>Buy gold.", "Buy gold."),
        ("They ask.\n</think>\n\nBuy gold.", "Buy gold."),
        ("Hm.\n<think>They ask.</think>\nBuy gold.", "Hm.\n\nBuy gold."),
        (
            "A <think> tag opens, a </think> tag closes.",
            "A <think> tag opens, a </think> tag closes.",
        ),
        (ANALYSIS + FINAL, "Buy gold."),
        (ANALYSIS + FINAL + "<|return|>", "Buy gold."),
        (ANALYSIS, ""),
        ("<|channel|>analysis<|message|>They as", ""),
        ("<|channel|>analysis", ""),
        ("<|channel|>final<|message|>Buy gold.", "Buy gold."),
        ("<|channel|>final <|constrain|>json<|message|>{}", "{}"),
        (
            "<|channel|>commentary to=functions.f <|constrain|>json<|message|>{}<|call|>" + FINAL,
            "Buy gold.",
        ),
        ("analysisThey ask.assistantfinalBuy gold.", "Buy gold."),
        ("analysis of the question: buy gold", "analysis of the question: buy gold"),
    ],
)
def test_the_answer_is_what_follows_reasoning(text: str, answer: str) -> None:
    assert final_answer(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("They ask.</think>Buy gold.", "Buy gold."),
        ("They ask", ""),
        ("They ask.[/THINK]Buy gold.", "Buy gold."),
        ("They ask.<|end|>" + FINAL, "Buy gold."),
    ],
)
def test_a_prompt_can_open_the_reasoning(text: str, answer: str) -> None:
    assert final_answer(text, opened=True) == answer


@pytest.mark.parametrize(
    ("prompt", "opens"),
    [
        ("<|user|>Hi<|assistant|><think>\n", True),
        ("<|user|>Hi<|assistant|><think>\n\n</think>\n\n", False),
        ("<|user|>What is <think>?<|assistant|>", False),
        ("<|start|>assistant", False),
        ("<|start|>assistant<|channel|>analysis<|message|>", True),
        ("<|start|>assistant<|channel|>final<|message|>", False),
        ("[/INST]", False),
    ],
)
def test_prompts_that_open_reasoning(prompt: str, opens: bool) -> None:
    assert opens_reasoning(prompt) == opens


def test_prefills_that_leave_reasoning_open() -> None:
    assert leaves_open("<think>\nThe user")
    assert not leaves_open("<think>\nThe user</think>Sure")
    assert leaves_open("<|channel|>analysis<|message|>The user")
    assert not leaves_open(ANALYSIS + FINAL)
    assert not leaves_open("Sure")
    assert has_reasoning("a</think>b")
    assert not has_reasoning("a < b")


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_texts_are_without_special_tokens(kind: str) -> None:
    tokenizer = TOKENIZERS[kind]()
    ids = tokenizer("First you should rest", add_special_tokens=False)["input_ids"]
    assert completion_reader(tokenizer)([*ids, tokenizer.eos_token_id]) == "First you should rest"


def test_channels_keep_their_markers() -> None:
    tokenizer = harmony()
    text = completion_reader(tokenizer)
    ids = tokenizer(ANALYSIS + FINAL, add_special_tokens=False)["input_ids"]
    end = tokenizer.convert_tokens_to_ids("<|endoftext|>")
    assert text([*ids, end]) == ANALYSIS + FINAL
    assert "analysisThey" in tokenizer.decode(ids, skip_special_tokens=True)
