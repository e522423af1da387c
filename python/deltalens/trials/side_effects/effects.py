"""Side effects of one condition, as values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

LOSS_RISES = 0.1
"""Nats a token: where the loss on neutral text rises by more, that is marked. Perplexity is then a
tenth higher. It describes, and decides nothing."""

Interval = tuple[float, float]


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % interval, None where fewer than two differ to tell it from."""

    value: float
    interval: Interval | None


@dataclass(frozen=True)
class Length:
    """Tokens of a condition's completions, first attempts, an end-of-text token not counted.

    change: against the unsteered completions of the same prompts; None for these themselves.
    cut: how many ended at ``max_new_tokens``. recounted: of how many no count was kept, so that
    their text was tokenised, which may give another.
    """

    mean: Estimate
    median: float
    change: Estimate | None
    cut: int
    completions: int
    recounted: int

    @property
    def cut_share(self) -> float:
        """Of the completions that ended at ``max_new_tokens``."""
        return self.cut / self.completions


@dataclass(frozen=True)
class NeutralEffect:
    """Neutral texts read with a condition: ``loss`` in nats a token, ``rise`` above the unsteered
    model's on the same texts, ``changed`` the share of tokens that another one would have been
    chosen for, greedily. Both None for the unsteered model. Of ``texts`` texts, ``tokens`` in all.
    """

    loss: Estimate
    rise: Estimate | None
    changed: Estimate | None
    texts: int
    tokens: int

    @property
    def rises(self) -> bool:
        """Whether the loss rises by more than :data:`LOSS_RISES`."""
        return self.rise is not None and self.rise.value > LOSS_RISES


@dataclass(frozen=True)
class SideEffects:
    """Of one condition; None where it was not measured."""

    length: Length | None
    neutral: NeutralEffect | None

    @classmethod
    def from_json(cls, stored: dict[str, Any] | None) -> SideEffects | None:
        """Of what ``dataclasses.asdict`` made of it."""
        if stored is None:
            return None
        length, neutral = stored["length"], stored["neutral"]
        return cls(
            length and Length(**_estimated(length, "mean", "change")),
            neutral and NeutralEffect(**_estimated(neutral, "loss", "rise", "changed")),
        )


def _estimated(stored: dict[str, Any], *names: str) -> dict[str, Any]:
    return {**stored, **{name: _estimate(stored[name]) for name in names}}


def _estimate(stored: dict[str, Any] | None) -> Estimate | None:
    if stored is None:
        return None
    interval = stored["interval"]
    return Estimate(stored["value"], interval and (interval[0], interval[1]))
