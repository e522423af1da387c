"""What a piece of work costs, in tokens, judge calls, money, bytes and seconds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

Prices = tuple[float, float]
"""Of the judge's prompt and completion tokens, per million of them."""

_UNITS = ("B", "kB", "MB", "GB", "TB")


@dataclass(frozen=True)
class Cost:
    """Costs of different work add up.

    forward, backward: tokens of given texts that a model reads, and that gradients pass.
    completions: to be generated, with the prompts' tokens and at most ``new_tokens`` of their own.
    judged: to be graded, by a chat model with at most so many tokens in and out. scratch, disk:
    bytes of files that are gone at the end, and about those that stay. seconds: of what is not
    done with tokens, as far as a planner knows.
    """

    forward: int = 0
    backward: int = 0
    completions: int = 0
    prompt_tokens: int = 0
    new_tokens: int = 0
    judged: int = 0
    judge_in: int = 0
    judge_out: int = 0
    scratch: int = 0
    disk: int = 0
    seconds: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(*map(sum, zip(vars(self).values(), vars(other).values(), strict=True)))

    def money(self, prices: Prices) -> float:
        """What the judge charges."""
        return (self.judge_in * prices[0] + self.judge_out * prices[1]) / 1e6

    def words(self, prices: Prices | None = None) -> str:
        """As part of a sentence; "nothing" where there is nothing to do."""
        return ", ".join(self._parts(prices)) or "nothing"

    def _parts(self, prices: Prices | None) -> Iterator[str]:
        if self.forward:
            yield f"{self.forward:,} tokens forward"
        if self.backward:
            yield f"{self.backward:,} backward"
        if self.completions:
            tokens = self.prompt_tokens + self.new_tokens
            yield f"{self.completions:,} completions ({tokens:,} tokens)"
        if self.judged:
            yield self._judging(prices)
        if self.scratch:
            yield f"{size(self.scratch)} of files meanwhile"
        if self.disk:
            yield f"about {size(self.disk)} of files to keep"
        if self.seconds:
            yield f"about {duration(self.seconds)} of scans"

    def _judging(self, prices: Prices | None) -> str:
        text = f"{self.judged:,} judge calls"
        if self.judge_in:
            text += f" ({self.judge_in:,} + {self.judge_out:,} tokens)"
        return text if prices is None else f"{text}, cost {self.money(prices):.4g}"


def size(count: int) -> str:
    """Bytes in the largest unit of which there is one."""
    value = float(count)
    for unit in _UNITS[:-1]:
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:,.3g} {_UNITS[-1]}"


def duration(seconds: float) -> str:
    """Seconds below two minutes, then minutes, from two hours on hours."""
    if seconds < 120:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:,.1f} h"
