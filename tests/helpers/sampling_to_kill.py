"""Samples pairs with a judge that takes its time, until somebody kills it."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from deltalens.judge import Answer, Verdict
from deltalens.pairs import sample_pairs
from helpers.graded_answers import (
    HashJudge,
    asked,
)
from helpers.tiny_study import (
    make_model,
    make_tokenizer,
)

QUESTIONS = [asked(f"q{n}", f"w{n} w{n + 1}") for n in range(8)]


class SlowJudge(HashJudge):
    def grade(self, answers: Sequence[Answer]) -> Iterator[tuple[int, Verdict]]:
        for found in super().grade(answers):
            time.sleep(0.05)
            yield found


if __name__ == "__main__":
    sample_pairs(
        make_model(),
        make_tokenizer(),
        QUESTIONS,
        SlowJudge(),
        samples=20,
        max_new_tokens=4,
        out=Path(sys.argv[1]),
    )
