"""How long answers are, from completions that are on disk."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from deltalens.lm.text.completions import bare_ids
from deltalens.trials.conditions import UNSTEERED, Condition
from deltalens.trials.log import Completion
from deltalens.trials.side_effects.effects import Length
from deltalens.trials.side_effects.estimate import ratio


@dataclass(frozen=True)
class _Counted:
    prompt: int
    tokens: int
    kept: bool


def answer_lengths(
    completions: Iterable[Completion], tokenizer: Any, max_new_tokens: int
) -> dict[Condition, Length]:
    """Of every condition with a first attempt among ``completions``."""
    counted: dict[Condition, list[_Counted]] = {}
    for completion in completions:
        key = completion.key
        if key.attempt == 0:
            condition = Condition(key.latent, key.strength)
            counted.setdefault(condition, []).append(_counted(completion, tokenizer))
    plain = _by_prompt(counted.get(UNSTEERED, ()))
    return {
        condition: _length(found, {} if condition == UNSTEERED else plain, max_new_tokens)
        for condition, found in counted.items()
    }


def _counted(completion: Completion, tokenizer: Any) -> _Counted:
    if completion.tokens is not None:
        return _Counted(completion.key.prompt, completion.tokens, True)
    return _Counted(completion.key.prompt, len(bare_ids(tokenizer, completion.text)), False)


def _by_prompt(counted: Iterable[_Counted]) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for one in counted:
        found.setdefault(one.prompt, []).append(one.tokens)
    return found


def _length(counted: list[_Counted], plain: Mapping[int, list[int]], max_new_tokens: int) -> Length:
    """Prompts are the sample: answers to one of them go together."""
    own = _by_prompt(counted)
    shared = [prompt for prompt in own if prompt in plain]
    sizes = [len(own[prompt]) for prompt in shared]
    moved = [
        sum(own[prompt]) - len(own[prompt]) * sum(plain[prompt]) / len(plain[prompt])
        for prompt in shared
    ]
    tokens = [one.tokens for one in counted]
    return Length(
        mean=ratio([sum(found) for found in own.values()], [len(found) for found in own.values()]),
        median=float(median(tokens)),
        change=ratio(moved, sizes) if shared else None,
        cut=sum(count >= max_new_tokens for count in tokens),
        completions=len(tokens),
        recounted=sum(not one.kept for one in counted),
    )
