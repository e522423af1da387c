"""How a tokenizer writes whole numbers, and how probable each of them is as a reply."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from deltalens.errors import InputError
from deltalens.lm.text.token_text import token_text

Number = tuple[int, float]
"""A whole number and the probability of it."""

LARGEST = 100
UNREAD = 1e-5  # of probability at each length, in which a number is taken to end where it is
_WRITTEN = re.compile(r"[▁Ġ\sĊĉč]*(?:[0-9].*)?|<0x(?:20|0[9AD]|3[0-9])>", re.DOTALL)
_NUMBERS = {str(number) for number in range(LARGEST + 1)}


class Numerals:
    """The tokens that whole numbers of 0 … 100 are written with.

    ids [columns]: these tokens and all others that begin with a digit; goes_on [columns]: whether
    a token continues the digits before it.
    """

    def __init__(self, tokenizer: Any, vocabulary: int) -> None:
        read = token_text(tokenizer)
        special = set(tokenizer.all_special_ids)
        texts = {
            token: read(token)
            for surface, token in tokenizer.get_vocab().items()
            if _WRITTEN.fullmatch(surface) and token < vocabulary and token not in special
        }
        if not any(text.strip() in _NUMBERS for text in texts.values()):
            raise InputError("the judge's tokenizer has no digits; use the rubric judge")
        self._texts = dict(sorted(texts.items()))
        self.ids = torch.tensor(list(self._texts))
        self.goes_on = torch.tensor(["0" <= text[:1] <= "9" for text in self._texts.values()])
        self._following: dict[str | None, list[tuple[int, str]]] = {}

    @cached_property
    def tokens(self) -> list[int]:
        """The ids of the columns."""
        return list(self._texts)

    def following(self, written: str | None) -> list[tuple[int, str]]:
        """(column, what is written then) of every token that may come next.

        written: the digits so far; "" after a space, None where nothing is written yet.
        """
        if written not in self._following:
            self._following[written] = list(self._next(written))
        return self._following[written]

    def _next(self, written: str | None) -> Iterator[tuple[int, str]]:
        for column, text in enumerate(self._texts.values()):
            grown = f"{written}{text}" if written else text.strip()
            if grown in _NUMBERS or (written is None and text and not grown):
                yield column, grown


class _Spelling(NamedTuple):
    """``tokens`` after prompt ``place``, which write ``written`` with probability ``mass``."""

    place: int
    tokens: tuple[int, ...]
    written: str
    mass: float


After = Callable[[Sequence[int], Sequence[Sequence[int]]], Tensor]


def whole_numbers(numerals: Numerals, first: Tensor, after: After) -> list[list[Number]]:
    """For each prompt, how probable it is that the reply is n and no further digit, n = 0 … 100.

    first [prompts, columns]: probabilities of the numerals' tokens; ``after(places, tokens)`` gives
    them [rows, columns] after prompts and as many tokens in each row. Every way to write a number
    counts, with or without a space in front. Of the spellings of one length the least probable,
    1e-5 together, are taken to end there: no score that there is moves by more than 0.02.
    """
    found: list[defaultdict[int, float]] = [defaultdict(float) for _ in first]
    roots = (_Spelling(place, (), "", 1.0) for place in range(len(first)))
    written = [
        spelling
        for root, row in zip(roots, first.tolist(), strict=True)
        for spelling in _grown(numerals, root, None, row)
    ]
    while written:
        followed = _followed(written, found)
        written = list(_next(numerals, followed, after, found)) if followed else []
    return [sorted(numbers.items()) for numbers in found]


def _followed(written: list[_Spelling], found: list[defaultdict[int, float]]) -> list[_Spelling]:
    """The spellings to read on after; the others are added to ``found``."""
    left = [0.0 for _ in found]
    followed = []
    for spelling in sorted(written, key=lambda spelling: spelling.mass):
        left[spelling.place] += spelling.mass
        if left[spelling.place] > UNREAD:
            followed.append(spelling)
        elif spelling.written:
            found[spelling.place][int(spelling.written)] += spelling.mass
    return followed


def _next(
    numerals: Numerals,
    spellings: list[_Spelling],
    after: After,
    found: list[defaultdict[int, float]],
) -> Iterator[_Spelling]:
    """What the spellings grow to; adds to ``found`` how probably each ends where it is."""
    rows = after([s.place for s in spellings], [s.tokens for s in spellings])
    ends = (1 - rows[:, numerals.goes_on.to(rows.device)].sum(1)).clamp_(min=0)
    for spelling, row, end in zip(spellings, rows.tolist(), ends.tolist(), strict=True):
        if spelling.written:
            found[spelling.place][int(spelling.written)] += spelling.mass * end
        yield from _grown(numerals, spelling, spelling.written, row)


def _grown(
    numerals: Numerals, spelling: _Spelling, written: str | None, row: list[float]
) -> Iterator[_Spelling]:
    for column, text in numerals.following(written):
        tokens = (*spelling.tokens, numerals.tokens[column])
        yield _Spelling(spelling.place, tokens, text, spelling.mass * row[column])
