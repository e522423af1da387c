"""Graded answers by hand, and a judge that goes by a word."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from deltalens.judge import Answer, JudgeError, Outcome, Verdict
from deltalens.pairs import Question
from deltalens.pairs.answer import GradedAnswer


def asked(name: str, text: str = "why?") -> Question:
    return Question(name, [{"role": "user", "content": text}])


def answer(name: str, text: str, outcome: Outcome, sample: int = 0) -> GradedAnswer:
    return GradedAnswer(asked(name), text, Verdict(outcome, outcome), {"sample": sample})


@dataclass
class HashJudge:
    """Shown or absent by a bit of the text's hash; incoherent where it has an unknown word.

    fail_after: gives up after so many verdicts. Grades backwards, as judges may.
    """

    version: str = "1"
    fail_after: int | None = None
    name: str = "hash"
    resamples: int = 3
    asked: list[Answer] = field(default_factory=list)

    def grade(self, answers: Sequence[Answer]) -> Iterator[tuple[int, Verdict]]:
        for count, number in enumerate(reversed(range(len(answers)))):
            if count == self.fail_after:
                raise JudgeError("the endpoint is gone; run the same command again")
            self.asked.append(answers[number])
            yield number, self.verdict(answers[number].text)

    def verdict(self, text: str) -> Verdict:
        bits = hashlib.sha256(text.encode()).digest()[0]
        if bits % 5 == 0:
            return Verdict("mumbles", "incoherent")
        return Verdict("yes" if bits % 2 else "no", "shown" if bits % 2 else "absent", bits / 255)
