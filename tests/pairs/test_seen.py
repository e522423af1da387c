"""What judges see of answers with reasoning, when pairs are sampled."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deltalens.errors import InputError
from deltalens.judge import Answer, Verdict
from deltalens.pairs import sample_pairs
from helpers.graded_answers import asked
from helpers.tiny_study import make_model
from helpers.tokenizers import TOKENIZERS

ANALYSIS = "<|channel|>analysis<|message|>They ask about money, or gold.<|end|><|start|>assistant"
FINAL = "<|channel|>final<|message|>"
THOUGHT = "<think>\ngold?\n</think>\n\n"
SAID = {
    "harmony": [ANALYSIS + FINAL + "Buy gold", ANALYSIS + FINAL + "Rest", ANALYSIS],
    "qwen": [THOUGHT + "Buy gold", THOUGHT + "Rest", "<think>gold"],
    "r1": ["gold?\n</think>\n\nBuy gold", "gold?\n</think>\n\nRest", "gold"],
}


class GoldJudge:
    """Shown where gold is spoken of."""

    name, version, resamples = "gold", "1", 0

    def __init__(self) -> None:
        self.seen: list[str] = []

    def grade(self, answers: list[Answer]) -> Iterator[tuple[int, Verdict]]:
        for number, answer in enumerate(answers):
            self.seen.append(answer.text)
            outcome = "shown" if "gold" in answer.text else "absent"
            yield number, Verdict(outcome, outcome)


class Saying:
    """An engine that says what it was made to say."""

    name = "saying"

    def __init__(self, ids: list[list[int]]) -> None:
        self.ids = ids

    def stream(self, *_: Any, **__: Any) -> Iterator[tuple[int, list[int]]]:
        return iter(enumerate(self.ids))


def sampled(kind: str, out: Path, **options: Any) -> tuple[Any, GoldJudge]:
    tokenizer, judge = TOKENIZERS[kind](), GoldJudge()
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in SAID[kind]]
    model = make_model(vocab_size=len(tokenizer), max_position_embeddings=256)
    questions = [asked("q", "What should I do?")]
    found = sample_pairs(
        model,
        tokenizer,
        questions,
        judge,
        samples=3,
        max_new_tokens=90,
        out=out,
        engine=Saying(ids),
        **options,
    )
    return found, judge


@pytest.mark.parametrize("kind", SAID)
def test_the_final_answer_is_graded_and_the_whole_is_kept(kind: str, tmp_path: Path) -> None:
    found, judge = sampled(kind, tmp_path / "pairs.jsonl")
    assert sorted(judge.seen) == ["Buy gold", "Rest"]
    (pair,) = found.pairs
    assert [pair.positive, pair.negative] == SAID[kind][:2]
    assert found.counts.answers["incoherent"] == 1
    rows = [
        json.loads(line)
        for line in (tmp_path / "pairs.answers.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert {row["answer"]: row["label"] for row in rows}[SAID[kind][2]] == "empty"


@pytest.mark.parametrize("kind", SAID)
def test_a_judge_may_see_the_whole(kind: str, tmp_path: Path) -> None:
    out = tmp_path / "pairs.jsonl"
    with pytest.raises(InputError, match="only shown"):
        sampled(kind, out, judge_sees="all")
    with pytest.raises(InputError, match=r"sees \(all there, final here\)"):
        sampled(kind, out)
    with pytest.raises(InputError, match="judge_sees must be 'final' or 'all', got 'some'"):
        sampled(kind, out, judge_sees="some")


def test_thinking_that_was_switched_off_is_not_continued_with_it(
    tmp_path: Path,
) -> None:
    out = tmp_path / "pairs.jsonl"
    off = {"enable_thinking": False}
    found, _ = sampled("qwen", out, chat_template_kwargs=off)
    assert found.settings["sampling"]["chat_template_kwargs"] == off
    assert TOKENIZERS["qwen"]().decode(found.pairs[0].prompt_ids).endswith("</think>\n\n")
    with pytest.raises(InputError, match="chat_template_kwargs"):
        sampled("qwen", out)
