"""What a row's loss is, where it is another than the log-loss of its whole completion."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from torch import Tensor


class Aim(NamedTuple):
    """A place of a completion, counted from 0, whose prediction a loss looks at, for ``token``;
    the place after the last token is there too."""

    place: int
    token: int
    weight: float = 1.0


@dataclass(frozen=True)
class Weighted:
    """Σ w · −log p over a completion's tokens; what has no weight is not looked at."""

    weights: tuple[float, ...]

    def aims(self, completion_ids: Sequence[int]) -> list[Aim]:
        """One for every token with a weight."""
        each = enumerate(zip(completion_ids, self.weights, strict=True))
        return [Aim(place, token, weight) for place, (token, weight) in each if weight]


@dataclass(frozen=True)
class Answers:
    """value(second) − value(first) of two tokens as what comes after the completion; values are
    logits or probabilities."""

    tokens: tuple[int, int]
    probabilities: bool

    def aims(self, completion_ids: Sequence[int]) -> list[Aim]:
        """The place after the completion."""
        return [Aim(len(completion_ids), self.tokens[0])]


@dataclass(frozen=True)
class Written:
    """``function(logits [n, vocabulary], ids [n])`` of a completion's n tokens, a scalar; ``name``
    is what errors call it."""

    function: Callable[[Tensor, Tensor], Tensor]
    name: str

    def aims(self, completion_ids: Sequence[int]) -> list[Aim]:
        """Every token."""
        return every_token(completion_ids)


Measure: TypeAlias = Answers | Written
"""A loss that is no sum of log-losses."""

Objective: TypeAlias = Weighted | Measure


def every_token(completion_ids: Sequence[int]) -> list[Aim]:
    """What the log-loss of a whole completion looks at."""
    return [Aim(place, token) for place, token in enumerate(completion_ids)]
