"""Shares of graded completions, with intervals."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from deltalens.errors import InputError
from deltalens.judge import Outcome

Z_95 = 1.959963984540054


@dataclass(frozen=True)
class Rate:
    """``count`` of ``n`` completions, with Wilson's 95 % interval."""

    count: int
    n: int

    def __post_init__(self) -> None:
        if not 0 <= self.count <= self.n:
            raise InputError(f"a rate needs 0 ≤ count ≤ n, got {self.count} of {self.n}")

    @property
    def value(self) -> float:
        """count / n; NaN when there is nothing to divide by."""
        return self.count / self.n if self.n else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's score interval at 95 % (Wilson 1927, JASA 22, p. 209); (0, 1) for n = 0."""
        if not self.n:
            return 0.0, 1.0
        p, z2 = self.value, Z_95**2
        centre = (p + z2 / (2 * self.n)) / (1 + z2 / self.n)
        half = Z_95 * math.sqrt(p * (1 - p) / self.n + z2 / (4 * self.n**2)) / (1 + z2 / self.n)
        return max(0.0, centre - half), min(1.0, centre + half)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.value:.1%} [{low:.1%}, {high:.1%}] of {self.n}"


@dataclass(frozen=True)
class Tally:
    """How the samples of one condition were graded.

    shown, absent: by each sample's last attempt. incoherent, evasive, unparsable: by its first
    one, so that sampling again does not hide them. Of ``samples`` samples.
    """

    shown: int = 0
    absent: int = 0
    incoherent: int = 0
    evasive: int = 0
    unparsable: int = 0
    samples: int = 0

    @classmethod
    def count(cls, first: Iterable[Outcome], last: Iterable[Outcome] | None = None) -> Tally:
        """From the outcomes of the samples' first and last attempts; the same where none is
        sampled again."""
        first = list(first)
        last = first if last is None else list(last)
        if len(first) != len(last):
            raise InputError(f"{len(first)} first and {len(last)} last attempts do not match")
        return cls(
            shown=last.count("shown"),
            absent=last.count("absent"),
            incoherent=first.count("incoherent"),
            evasive=first.count("evasive"),
            unparsable=first.count("unparsable"),
            samples=len(first),
        )

    @property
    def behaviour(self) -> Rate:
        """Samples that show the behaviour among those that could be graded."""
        return Rate(self.shown, self.shown + self.absent)

    @property
    def incoherence(self) -> Rate:
        """Strict: incoherent first attempts among all."""
        return Rate(self.incoherent, self.samples)

    @property
    def loose_incoherence(self) -> Rate:
        """Incoherent or evasive first attempts among all."""
        return Rate(self.incoherent + self.evasive, self.samples)
