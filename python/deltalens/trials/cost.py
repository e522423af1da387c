"""What a sweep costs: completions, tokens, judge calls, and with prices money."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deltalens.judge import Answer, Judge
from deltalens.trials.conditions import UNSTEERED, Condition, Grid, steered
from deltalens.trials.log import Key
from deltalens.trials.result import Candidate, Direction
from deltalens.trials.work import ArmWork

Prices = tuple[float, float]
"""Of the judge's prompt and completion tokens, per million of them."""

_PROMPTS_READ = 20  # to see how long a judge's requests are


@dataclass(frozen=True)
class Cost:
    """completions: to be generated, with the prompts' tokens and at most ``new_tokens`` of their
    own. judged: to be graded, by a chat model with at most so many tokens in and out."""

    completions: int = 0
    prompt_tokens: int = 0
    new_tokens: int = 0
    judged: int = 0
    judge_in: int = 0
    judge_out: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(*map(sum, zip(vars(self).values(), vars(other).values(), strict=True)))

    def money(self, prices: Prices) -> float:
        """What the judge charges."""
        return (self.judge_in * prices[0] + self.judge_out * prices[1]) / 1e6

    def words(self, prices: Prices | None) -> str:
        """As part of a sentence."""
        tokens = self.prompt_tokens + self.new_tokens
        text = f"{self.completions:,} completions ({tokens:,} tokens), {self.judged:,} judge calls"
        if self.judge_in:
            text += f" ({self.judge_in:,} + {self.judge_out:,} tokens)"
        return text if prices is None else f"{text}, cost {self.money(prices):.4g}"


def cost_of(work: ArmWork, keys: Iterable[Key], longest: Sequence[int]) -> Cost:
    """Of what is not on disk yet among ``keys``. longest: (in, out) tokens of a judge call."""
    keys = list(keys)
    missing = [key for key in keys if key not in work.completions]
    judged = sum(key not in work.verdicts for key in keys)
    return Cost(
        completions=len(missing),
        prompt_tokens=sum(len(work.subject.prompts[key.prompt]) for key in missing),
        new_tokens=len(missing) * work.subject.generation.max_new_tokens,
        judged=judged,
        judge_in=judged * longest[0],
        judge_out=judged * longest[1],
    )


def judge_tokens(judge: Judge, work: ArmWork) -> tuple[int, int]:
    """Tokens in and out of a judge call at most, as the studied model's tokenizer counts; 0 for a
    judge that asks no chat model."""
    asks: Any = getattr(judge, "longest_call", None)
    if asks is None:
        return 0, 0
    subject = work.subject
    room = subject.generation.max_new_tokens

    def count(text: str) -> int:
        return len(subject.tokenizer(text, add_special_tokens=False)["input_ids"])

    calls = [asks(Answer(prompt, ""), count) for prompt in subject.answered[:_PROMPTS_READ]]
    texts, out = max(requests for requests, _, _ in calls), max(out for _, _, out in calls)
    return max(tokens for _, tokens, _ in calls) + texts * room, out


@dataclass(frozen=True)
class Range:
    """Of a sweep: what it samples for certain, and at most."""

    least: Cost = Cost()
    most: Cost = Cost()

    def __add__(self, other: Range) -> Range:
        return Range(self.least + other.least, self.most + other.most)

    def sentence(self, prices: Prices | None) -> str:
        """What is said before a sweep begins."""
        most = f"{self.most.words(prices)}; more where answers cannot be graded."
        if self.least == self.most:
            return f"To do: {most}"
        return f"To do: from {self.least.words(prices)}, to {most}"


def full_cost(
    work: ArmWork, candidates: Sequence[Candidate], grid: Grid, direction: Direction
) -> Range:
    """Of a sweep that samples everything; without weaker strengths that some candidates need."""
    longest = judge_tokens(work.judge, work)
    everything = range(len(work.subject.prompts))
    keys = _keys(candidates, grid.strengths, grid, direction, everything)
    found = cost_of(work, keys, longest)
    return Range(found, found)


def adaptive_cost(
    work: ArmWork,
    candidates: Sequence[Candidate],
    grid: Grid,
    direction: Direction,
    *,
    pilot: Sequence[int],
    first: Sequence[int],
) -> Range:
    """From everything decided at the first look to nothing decided before the last."""
    longest = judge_tokens(work.judge, work)
    everything = range(len(work.subject.prompts))
    least: list[Cost] = []
    most: list[Cost] = []
    trial = _keys(candidates, grid.strengths, grid, direction, pilot)
    for strength in grid.strengths:
        for found, prompts in ((least, first), (most, everything)):
            keys = {*trial, *_keys(candidates, [strength], grid, direction, prompts)}
            found.append(cost_of(work, keys, longest))
    return Range(
        min(least, key=lambda cost: cost.completions), max(most, key=lambda cost: cost.completions)
    )


def _keys(
    candidates: Sequence[Candidate],
    strengths: Iterable[float],
    grid: Grid,
    direction: Direction,
    prompts: Sequence[int],
) -> list[Key]:
    conditions: Mapping[Condition, None] = dict.fromkeys(
        steered(item, direction, strength) for strength in strengths for item in candidates
    )
    return [key for c in (UNSTEERED, *conditions) for key in grid.keys(c, prompts)]
