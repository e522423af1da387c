from __future__ import annotations

import pytest

from deltalens.judge.label import parse_label
from deltalens.lm.text.reasoning import after_reasoning, begins_reasoning, opening_tag

HARMONY = (
    "<|channel|>analysis<|message|>ANSWER: 5? Let us see.<|end|>"
    "<|start|>assistant<|channel|>{channel}<|message|>It is kind. ANSWER: 1"
)


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        ("It is kind.", "It is kind."),
        ("<think>ANSWER: 5</think>ANSWER: 1", "ANSWER: 1"),
        ("Well. <think>a</think> b <THINK>c</Think> d", " d"),
        ("opened by the template</think>\n\nANSWER: 1", "\n\nANSWER: 1"),
        ("[THINK]ANSWER: 5[/THINK]ANSWER: 1", "ANSWER: 1"),
        ("<think>ANSWER: 5", ""),
        ("ANSWER: 1\n<think>ANSWER: 5", ""),
        ("<think>a</think>b<think>ANSWER: 5", ""),
        (HARMONY.format(channel="final"), "It is kind. ANSWER: 1"),
        (HARMONY.format(channel="final") + "<|return|>", "It is kind. ANSWER: 1"),
        (HARMONY.format(channel="final <|constrain|>text"), "It is kind. ANSWER: 1"),
        (HARMONY.format(channel="commentary"), ""),
        ("<|channel|>analysis<|message|>ANSWER: 5", ""),
        ("analysisThe user ANSWER: 5assistantfinalANSWER: 1", "ANSWER: 1"),
        ("analysisThe user asks. ANSWER: 5", ""),
        ("analysis of the answer: it is kind", "analysis of the answer: it is kind"),
    ],
)
def test_what_is_said_after_reasoning(reply, said):
    assert after_reasoning(reply) == said
    assert parse_label(reply) == ("1" if "ANSWER: 1" in said else "UNPARSABLE")


def test_where_reasoning_begins():
    assert all(map(begins_reasoning, ("<think>", "\n<think>\nHm", "<|channel|>", "[THINK]")))
    assert not any(map(begins_reasoning, ("95", "", "I <think>", "<", "think")))
    assert opening_tag("<|im_start|>assistant\n<think>\n") == "<think>"
    assert opening_tag("Speak of <think> tags") == ""
    assert opening_tag("<think>\n\n</think>\n\n") == ""
