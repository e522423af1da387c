"""What a sweep costs: completions, tokens, judge calls, and with prices money."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from deltalens.cost.total import Cost, Prices
from deltalens.judge import Judge
from deltalens.pairs.cost import TOKEN_BYTES, longest_call
from deltalens.trials.conditions import UNSTEERED, Condition, Grid, steered
from deltalens.trials.log import Key
from deltalens.trials.result import RANDOM_SETS, Candidate, Direction
from deltalens.trials.together.selection import Selection, assumed_stages
from deltalens.trials.work import ArmWork

_LINE_BYTES = 130  # of a completion's line beside its text, about
_VERDICT_BYTES = 180


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
        disk=len(missing) * (_LINE_BYTES + TOKEN_BYTES * work.subject.generation.max_new_tokens)
        + judged * (_VERDICT_BYTES + TOKEN_BYTES * longest[1]),
    )


def judge_tokens(judge: Judge, work: ArmWork) -> tuple[int, int]:
    """Tokens in and out of a judge call at most, as the studied model's tokenizer counts; 0 for a
    judge that asks no chat model."""
    subject = work.subject
    return longest_call(
        judge, subject.tokenizer, subject.answered, subject.generation.max_new_tokens
    )


@dataclass(frozen=True)
class Range:
    """Of a sweep: what it samples for certain, and at most."""

    least: Cost = field(default_factory=Cost)
    most: Cost = field(default_factory=Cost)

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


def greedy_cost(
    work: ArmWork,
    candidates: Sequence[Candidate],
    grid: Grid,
    direction: Direction,
    sets: Mapping[str, Sequence[Candidate]],
    selection: Selection,
    *,
    chooses: bool,
) -> Range:
    """Of the choice, where this arm makes it, and of testing what was chosen: as many completions
    as it will be, whatever is chosen."""
    longest = judge_tokens(work.judge, work)
    pools = [chosen for name, chosen in sets.items() if name not in RANDOM_SETS and chosen]
    stages = [list(assumed_stages(pool, selection.size)) for pool in pools]
    controls = [item for item in candidates if item not in {one for pool in pools for one in pool}]
    last = [found[-1][0] for found in stages]
    keys = _keys([*last, *controls], grid.strengths, grid, direction, selection.tested_on)
    if chooses:
        tried = [item for found in stages for stage in found for item in stage]
        keys += _keys(tried, grid.strengths, grid, direction, selection.chosen_on)
    found = cost_of(work, dict.fromkeys(keys), longest)
    return Range(found, found)


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
