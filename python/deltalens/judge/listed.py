"""Whole numbers among the alternatives that a server lists for the tokens of a reply."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Literal, NamedTuple

from deltalens.judge.numerals import LARGEST, Number

Spelling = Literal["whole", "split", "unclear"]
"""Whether a server's tokens are whole numbers or single digits, as far as a reply shows it."""

LEAST_UNCLEAR = 1e-3  # of the numbers' probability; less moves a score by less than a tenth


class Listed(NamedTuple):
    """A reply's token, and (text, log-probability) of the most probable ones in its place."""

    token: str
    logprob: float
    alternatives: list[tuple[str, float]]


def numbers_listed(tokens: Sequence[Listed]) -> list[Number]:
    """The whole numbers 0 … 100 that a reply begins with, of tokens that are whole numbers.

    A reply that begins with a space is read after it, too, and what comes after its number says
    how probably that one ends.
    """
    found: defaultdict[int, float] = defaultdict(float)
    before = 0.0
    for at, item in enumerate(tokens):
        said = bool(_bare(item.token))
        going_on = _goes_on(tokens[at + 1 : at + 2]) if said else 0.0
        for text, logprob in item.alternatives:
            number = _number(text)
            if number is not None:
                ends = 1 - going_on if text == item.token else 1.0
                found[number] += math.exp(before + logprob) * ends
        if said:
            break
        before += item.logprob
    return sorted(found.items())


def spelling(tokens: Sequence[Listed]) -> Spelling:
    """What the reply ``tokens`` shows of how numbers are written.

    "unclear": its alternatives that are numbers are single digits, with which longer ones may
    begin. One that can only be 0 is clear.
    """
    start = next((at for at, item in enumerate(tokens) if _bare(item.token)), len(tokens))
    said = [item.token for item in tokens[start : start + 2]]
    if len(said) == 2 and _is_digit(_bare(said[0])) and _is_digit(said[1][:1]):
        return "split"
    texts = [_bare(text) for item in tokens[: start + 1] for text, _ in item.alternatives]
    if any(len(text) > 1 and _number(text) is not None for text in texts):
        return "whole"
    numbers = numbers_listed(tokens)
    unclear = sum(p for number, p in numbers if number > 0)
    return "unclear" if unclear > LEAST_UNCLEAR * sum(p for _, p in numbers) else "whole"


def _goes_on(following: Sequence[Listed]) -> float:
    """How probably a number is continued, by the token that follows it, if any."""
    listed = (other for item in following for other in item.alternatives)
    return min(1.0, sum(math.exp(logprob) for text, logprob in listed if _is_digit(text[:1])))


def _is_digit(text: str) -> bool:
    return len(text) == 1 and "0" <= text <= "9"


def _bare(token: str) -> str:
    """Without spaces, also as tokenizers write them, which some servers hand on."""
    return token.strip().strip("▁Ġ")


def _number(token: str) -> int | None:
    text = _bare(token)
    number = int(text) if text.isascii() and text.isdigit() else LARGEST + 1
    return number if number <= LARGEST and str(number) == text else None
