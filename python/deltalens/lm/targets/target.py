"""What a study asks of: which loss of every completion it takes the difference of."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from deltalens.errors import InputError, quoted
from deltalens.lm.targets.objectives import Answers, Objective, Weighted, Written
from deltalens.lm.targets.spans import matching
from deltalens.lm.text.completions import following_ids

_CONTEXT = 32  # tokens before an answer, of which its own depend on the last


class Side(NamedTuple):
    """A completion with its prompt; ``weights`` are those the pair gives its tokens, and ``label``
    what errors call it."""

    label: str
    prompt_ids: Sequence[int]
    ids: Sequence[int]
    weights: Sequence[float] | None


@dataclass(frozen=True)
class Target(ABC):
    """A choice of loss by the name that runs record; ``code``: the hash of a function's source."""

    name: str
    code: str | None = None

    @abstractmethod
    def objective(self, tokenizer: Any, side: Side) -> Objective | None:
        """What the completion's loss is of; None: the log-loss of all its tokens.

        Raises :class:`InputError` for what does not go together.
        """

    def _check_unweighted(self, side: Side) -> None:
        if side.weights is not None:
            raise InputError(
                f"{side.label}_weights have no meaning with the target {self.name}, which is no "
                "loss of tokens; remove them"
            )


@dataclass(frozen=True)
class Tokens(Target):
    """The log-loss of the completion's first tokens, or of those with a part in what ``pattern``
    matches; of all where neither is given."""

    first: int | None = None
    pattern: re.Pattern[str] | None = None

    def objective(self, tokenizer: Any, side: Side) -> Weighted | None:
        """With the weights of the pair; all are 0 where nothing matches."""
        given = [1.0] * len(side.ids) if side.weights is None else side.weights
        if len(given) != len(side.ids):
            raise InputError(
                f"{side.label}_weights has {len(given)} numbers for {len(side.ids)} tokens; give "
                "one for each token of the completion"
            )
        chosen = self._chosen(tokenizer, side.ids)
        weights = tuple(w if chosen else 0.0 for w, chosen in zip(given, chosen, strict=True))
        return None if all(weight == 1 for weight in weights) else Weighted(weights)

    def _chosen(self, tokenizer: Any, ids: Sequence[int]) -> list[bool]:
        if self.pattern is not None:
            return matching(_required(tokenizer, self.name), ids, self.pattern)
        return [self.first is None or place < self.first for place in range(len(ids))]


@dataclass(frozen=True)
class Contrast(Target):
    """By how much the second of two answers comes before the first after the completion."""

    answers: tuple[str, str] = ("", "")
    probabilities: bool = False

    def objective(self, tokenizer: Any, side: Side) -> Answers:
        """Of the answers' first tokens as they follow the completion, which must differ."""
        self._check_unweighted(side)
        first, second = (self._first(tokenizer, answer, side) for answer in self.answers)
        if first == second:
            token = tokenizer.convert_ids_to_tokens(first)
            raise InputError(
                f"{side.label}: both answers of {self.name} begin with the token {quoted(token)}; "
                "give answers that differ in their first token"
            )
        return Answers((first, second), self.probabilities)

    def _first(self, tokenizer: Any, answer: str, side: Side) -> int:
        before = [*side.prompt_ids, *side.ids][-_CONTEXT:]
        text = _required(tokenizer, self.name).decode(
            before, skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        ids = following_ids(tokenizer, answer, text, before).ids
        if not ids:
            raise InputError(f"{self.name}: the answer {quoted(answer)} has no tokens")
        return ids[0]


@dataclass(frozen=True)
class Function(Target):
    """A function of the user's own."""

    written: Written | None = None

    def objective(self, tokenizer: Any, side: Side) -> Written | None:
        """The function."""
        self._check_unweighted(side)
        return self.written


LOSS = Tokens("loss")
"""The log-loss of the whole completion."""


def _required(tokenizer: Any, name: str) -> Any:
    if tokenizer is None:
        raise InputError(f"the target {name} needs a tokenizer; pass one")
    return tokenizer
