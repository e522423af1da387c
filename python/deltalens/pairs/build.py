"""From graded answers to pairs: as many of every prompt, chosen by a seed, alike in length."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from deltalens.errors import InputError
from deltalens.judge import Outcome
from deltalens.pairs.answer import OUTCOMES, GradedAnswer

Fate = Literal["paired", "too few", "only shown", "only absent", "neither"]
FATES: tuple[Fate, ...] = ("paired", "too few", "only shown", "only absent", "neither")


@dataclass(frozen=True)
class GradedPair:
    """An answer that shows the behaviour and one to the same prompt that does not."""

    id: str
    positive: GradedAnswer
    negative: GradedAnswer


@dataclass(frozen=True)
class PairCounts:
    """What became of the answers and of the prompts.

    answers: by outcome; empty, cut: of all answers, those without text and those that the limit of
    tokens ended. repeated: that say what another one to the same prompt says. contradictory: graded
    both ways, and used for neither. prompts: by what they gave: "paired", "too few" of one kind for
    the pairs asked of every prompt, "only shown", "only absent" or "neither".
    """

    answers: dict[Outcome, int]
    empty: int
    cut: int
    repeated: int
    contradictory: int
    prompts: dict[Fate, int]
    pairs: int


def build_pairs(
    answers: Iterable[GradedAnswer], *, per_prompt: int = 1, seed: int = 0
) -> tuple[list[GradedPair], PairCounts]:
    """``per_prompt`` pairs of every prompt that has so many answers of both kinds.

    Answers that show the behaviour are drawn at random and each is given the answer without it that
    is nearest in length, in characters; the draw depends on ``seed`` and the prompt's own answers
    alone. An answer is used once; so are answers with the same text.
    """
    if per_prompt < 1:
        raise InputError(f"per_prompt must be at least 1, got {per_prompt}")
    prompts = _by_prompt(answers)
    numbers: Counter[str] = Counter()
    pairs: list[GradedPair] = []
    for prompt in prompts:
        if prompt.fate(per_prompt) == "paired":
            for positive, negative in _matched(prompt, per_prompt, seed):
                name = positive.question.id
                numbers[name] += 1
                pairs.append(GradedPair(f"{name}-{numbers[name]}", positive, negative))
    return pairs, _count(prompts, per_prompt, len(pairs))


@dataclass(frozen=True)
class _Prompt:
    """All answers to one prompt, and the different texts of both kinds that can be used."""

    answers: list[GradedAnswer]
    shown: list[GradedAnswer]
    absent: list[GradedAnswer]
    contradictory: int

    def fate(self, per_prompt: int) -> Fate:
        fewer, more = sorted((len(self.shown), len(self.absent)))
        if fewer:
            return "paired" if fewer >= per_prompt else "too few"
        if not more:
            return "neither"
        return "only shown" if self.shown else "only absent"


def _by_prompt(answers: Iterable[GradedAnswer]) -> list[_Prompt]:
    groups: dict[str, list[GradedAnswer]] = {}
    for answer in answers:
        groups.setdefault(answer.question.key, []).append(answer)
    return list(map(_sort_out, groups.values()))


def _sort_out(answers: list[GradedAnswer]) -> _Prompt:
    shown, absent = (_texts(answers, outcome) for outcome in ("shown", "absent"))
    both = shown.keys() & absent.keys()
    return _Prompt(
        answers,
        shown=[answer for text, answer in shown.items() if text not in both],
        absent=[answer for text, answer in absent.items() if text not in both],
        contradictory=sum(answer.text.strip() in both for answer in answers),
    )


def _texts(answers: Sequence[GradedAnswer], outcome: str) -> dict[str, GradedAnswer]:
    """The first answer with each text."""
    kept = (a for a in reversed(answers) if a.verdict.outcome == outcome and not a.empty)
    return {answer.text.strip(): answer for answer in kept}


def _matched(prompt: _Prompt, count: int, seed: int) -> Iterable[tuple[GradedAnswer, GradedAnswer]]:
    draw = random.Random(f"{seed} {prompt.answers[0].question.key}")
    absent = draw.sample(prompt.absent, len(prompt.absent))
    for positive in draw.sample(prompt.shown, count):
        length = len(positive.text)
        nearest = min(range(len(absent)), key=lambda n: abs(len(absent[n].text) - length))
        yield positive, absent.pop(nearest)


def _count(prompts: Sequence[_Prompt], per_prompt: int, pairs: int) -> PairCounts:
    answers = [answer for prompt in prompts for answer in prompt.answers]
    outcomes = Counter(answer.verdict.outcome for answer in answers)
    fates = Counter(prompt.fate(per_prompt) for prompt in prompts)
    texts = {(answer.question.key, answer.text.strip()) for answer in answers if not answer.empty}
    empty = sum(answer.empty for answer in answers)
    return PairCounts(
        answers={outcome: outcomes[outcome] for outcome in OUTCOMES},
        empty=empty,
        cut=sum(answer.cut for answer in answers),
        repeated=len(answers) - empty - len(texts),
        contradictory=sum(prompt.contradictory for prompt in prompts),
        prompts={fate: fates[fate] for fate in FATES},
        pairs=pairs,
    )
