"""A pair's token ids: what both completions are read after, what one of them alone, what counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from torch import Tensor

from deltalens.errors import InputError
from deltalens.lm.pairs import Pair
from deltalens.lm.rows import TokenRow
from deltalens.lm.targets.objectives import Objective
from deltalens.lm.text.completions import Way

Align = Literal["position", "given"]

Doubt = Literal["text", "prompt", "reasoning"]
"""What to warn of: ids that do not say what a completion's text says; a prompt that was other
tokens where the completions were sampled; a completion without reasoning after a prompt that opens
some."""


@dataclass(frozen=True)
class Reading:
    """What of a pair is its prompt.

    prefix_tokens: so many first tokens of each completion count as its prompt. align: how a
    prompt's tokens find their counterparts in the ``negative_prompt``, by "position" or as "given"
    by the pair's ``alignment``; both completions are then read after ``prompt``, and the
    counterparts' activations take the baseline's place. None: each is read after its own prompt.
    Raises :class:`InputError` for what does not go together.
    """

    prefix_tokens: int = 0
    align: Align | None = None

    def __post_init__(self) -> None:
        if type(self.prefix_tokens) is not int or self.prefix_tokens < 0:
            raise InputError(f"prefix_tokens must be 0 or more, got {self.prefix_tokens!r}")
        if self.align not in (None, *get_args(Align)):
            known = ", ".join(get_args(Align))
            raise InputError(f"align must be None or one of {known}, got {self.align!r}")
        if self.align is not None and self.prefix_tokens:
            raise InputError(
                "a completion's first tokens have no counterparts in the other prompt; give align "
                "or prefix_tokens, not both"
            )

    def check_gradients(self, gradients: str) -> None:
        """Raise :class:`InputError` for kinds of gradients that aligned prompts do not have."""
        if self.align is not None and gradients == "integrated":
            raise InputError(
                "integrated gradients start at the baseline, whose place the other prompt takes "
                "with align; use plain or relp"
            )

    def check_score(self, score: str) -> None:
        """Raise :class:`InputError` for kinds of score that aligned prompts do not have."""
        if self.align is not None and score == "latent":
            raise InputError(
                "with align a direction's projection is held against the other prompt's, which "
                "score='latent' has no form of; leave one of them out"
            )

    def subtracted(self, mean: Tensor) -> Tensor:
        """What is subtracted from rows: ``mean``, or 0 where their counterparts' have been."""
        return mean if self.align is None else torch.zeros_like(mean)


WHOLE_PROMPT = Reading()
"""How pairs are read where nothing is said."""


@dataclass(frozen=True)
class Own:
    """Tokens that one completion alone is read after, and for each whether it is attributed to."""

    ids: list[int] = field(default_factory=list)
    counted: list[bool] = field(default_factory=list)


@dataclass(frozen=True)
class Counterpart:
    """Another prompt; ``places`` says for each token of the pair's prompt which of ``ids`` is its
    counterpart, None where there is none."""

    ids: list[int]
    places: list[int | None]


@dataclass(frozen=True)
class EncodedPair:
    """Token ids of a pair; ``counted`` says for each of ``prompt_ids`` whether it is attributed to.

    ``prompt_ids`` are the tokens that both completions are read after, ``own`` those that come next
    before the positive and before the negative one alone, of which ``prefix`` have been the
    completion's first. ``ways``: where the ids of the positive and of the negative completion come
    from; ``objectives``: what their losses are, None: the log-loss.
    """

    pair: Pair
    prompt_ids: list[int]
    positive_ids: list[int]
    negative_ids: list[int]
    counted: list[bool]
    ways: tuple[Way, Way] = ("ids", "ids")
    doubts: tuple[Doubt, ...] = ()
    objectives: tuple[Objective | None, Objective | None] = (None, None)
    own: tuple[Own, Own] = (Own(), Own())
    prefix: int = 0
    counterpart: Counterpart | None = None

    @property
    def rows(self) -> tuple[TokenRow, TokenRow]:
        """The positive and the negative completion with all that each is read after."""
        positive, negative = (
            TokenRow(self.prompt_ids + own.ids, completion, self.counted + own.counted, objective)
            for own, completion, objective in zip(
                self.own, (self.positive_ids, self.negative_ids), self.objectives, strict=True
            )
        )
        return positive, negative

    @property
    def own_counted(self) -> tuple[int, int]:
        """How many counted tokens only the positive and only the negative completion follow."""
        positive, negative = self.own
        return sum(positive.counted), sum(negative.counted)

    @property
    def counted_rows(self) -> int:
        """How many different tokens are counted."""
        return sum(self.counted) + sum(self.own_counted)

    @property
    def tokens(self) -> float:
        """T: how many counted tokens a completion follows, the mean of the two."""
        return counted_tokens(self.counted_rows, self.own_counted)

    @property
    def places(self) -> list[tuple[int, int]]:
        """(position, id) of every counted token: of those that both completions follow, then of
        those of the positive one alone, then of the negative one's."""
        start = len(self.prompt_ids)
        parts = [(0, self.prompt_ids, self.counted)]
        parts += [(start, own.ids, own.counted) for own in self.own]
        return [
            (first + place, token)
            for first, ids, counted in parts
            for place, (token, is_counted) in enumerate(zip(ids, counted, strict=True))
            if is_counted
        ]

    @property
    def counterparts(self) -> list[int]:
        """Where in the other prompt the counted tokens' counterparts stand; none without one."""
        if self.counterpart is None:
            return []
        places = zip(self.counterpart.places, self.counted, strict=True)
        return [place for place, counted in places if counted and place is not None]


def counted_tokens(rows: int, own: tuple[int, int]) -> float:
    """How many counted tokens a completion follows, the mean of the two, where there are ``rows``
    different ones and ``own`` of them precede one completion alone."""
    return rows - sum(own) / 2


def shared_length(positive: Sequence[int], negative: Sequence[int]) -> int:
    """How many first tokens two sequences have in common."""
    both = zip(positive, negative, strict=False)
    return next(
        (at for at, (one, other) in enumerate(both) if one != other),
        min(len(positive), len(negative)),
    )


def counterpart(
    pair: Pair, ids: Sequence[int], other: Sequence[int], align: Align, label: str
) -> Counterpart:
    """The ``other`` prompt as the counterpart of the one with these ``ids``.

    Raises :class:`InputError` naming the pair by ``label`` where one token has no counterpart, or
    two.
    """
    if list(ids) == list(other):
        raise InputError(f"{label}: prompt and negative_prompt are the same tokens")
    if align == "position":
        if len(ids) != len(other):
            raise InputError(
                f"{label}: the prompts have {len(ids)} and {len(other)} tokens, so that they are "
                "not aligned by position; give an alignment, or leave align out"
            )
        return Counterpart(list(other), list(range(len(other))))
    if pair.alignment is None:
        raise InputError(f"{label}: no alignment is given; add one, or align by position")
    places: list[int | None] = [None] * len(ids)
    for here, there in pair.alignment:
        if here >= len(ids) or there >= len(other):
            raise InputError(
                f"{label}: alignment [{here}, {there}] of prompts of {len(ids)} and {len(other)} "
                "tokens; tokens are counted from 0, a BOS included"
            )
        if places[here] is not None:
            raise InputError(f"{label}: token {here} of the prompt is aligned twice")
        places[here] = there
    return Counterpart(list(other), places)
