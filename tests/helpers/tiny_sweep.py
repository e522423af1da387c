"""A small sweep on a tiny random model, with a judge that counts what it is asked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from deltalens.judge import Answer, JudgeError, Outcome, Verdict
from deltalens.trials import Neutral, sweep
from deltalens.trials.result import ACTIVATION, ATTRIBUTION, RANDOM, Candidate, SweepResult
from deltalens.trials.setup.settings import Generation
from helpers.tiny_study import (
    D_MODEL,
    SITE,
    make_model,
    make_tokenizer,
)

PROMPTS = ["<s> w1 w2 w3", "<s> w4 w5", [{"role": "user", "content": "w6 w7"}], "<s> w8"]
W_DEC = torch.randn(50, D_MODEL, generator=torch.Generator().manual_seed(0))
SETS = {
    ATTRIBUTION: [Candidate(7, 1), Candidate(9, -1)],
    ACTIVATION: [Candidate(7, 1), Candidate(9, 1)],
    RANDOM: [Candidate(31, 1), Candidate(32, 1)],
}
NEUTRAL = Neutral(
    ["w1 w2 w3 w4 w5 w6 w7 w8 w9", "", "w3 w2", "w9 w9 w1 w0 w5 w30", "w4 w4 w4"], count=3, tokens=8
)
OUTCOMES: tuple[Outcome, ...] = ("shown", "absent", "shown", "incoherent", "evasive", "unparsable")


def outcome(text: str) -> Outcome:
    return OUTCOMES[sum(map(ord, text)) % len(OUTCOMES)]


class CountingJudge:
    """Grades by the letters of a text; fails when it has graded ``fail_after`` answers."""

    name = "letters"

    def __init__(self, resamples: int = 2, version: str = "1" * 16) -> None:
        self.resamples, self.version = resamples, version
        self.asked: list[Answer] = []
        self.fail_after: int | None = None

    def grade(self, answers: Sequence[Answer]) -> Iterator[tuple[int, Verdict]]:
        for number in reversed(range(len(answers))):
            if len(self.asked) == self.fail_after:
                raise JudgeError("the judge has gone away; run the same command again")
            self.asked.append(answers[number])
            found = outcome(answers[number].text)
            yield number, Verdict(found.upper(), found, raw=answers[number].text[:4])


def run_sweep(run: Path, judge: Any = None, **changes: Any) -> SweepResult:
    arguments: dict[str, Any] = {
        "models": {"away": make_model(), "toward": make_model(seed=1)},
        "tokenizer": make_tokenizer(),
        "prompts": PROMPTS,
        "decoder": W_DEC,
        "sets": SETS,
        "judge": judge or CountingJudge(),
        "run": run,
        "site": SITE,
        "generation": Generation(max_new_tokens=4, seed=4),
        "strengths": (0.5, 2.0),
        "samples": 2,
        "unsteered_samples": 3,
        "max_incoherence": 0.2,
        **changes,
    }
    return sweep(**arguments)
