"""A verdict as values, in memory and as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from deltalens.trials.together.latents import Latents, read_latents

Decision = Literal["beyond", "alike", "undecided"]
"""beyond: the set moves the behaviour beyond what random latents do. alike: whatever it does more
than they do is too small to matter. undecided: the samples are compatible with both."""

Interval = tuple[float, float]


@dataclass(frozen=True)
class LatentVerdict:
    """One latent at the strength compared at; ``None`` where none of its answers could be graded.

    change: of the behaviour's rate. p: the rank of its change among the controls'. q: p after
    Benjamini and Hochberg's adjustment within the set.
    """

    latent: Latents
    sign: int
    change: float | None
    p: float | None
    q: float | None


@dataclass(frozen=True)
class Described:
    """The mean change of ``latents`` latents, with its interval; ``ungraded`` more had no answer
    that could be graded. None where there is nothing to say it from."""

    latents: int
    ungraded: int
    mean: float | None
    interval: Interval | None


@dataclass(frozen=True)
class SetVerdict:
    """A set of suspects against all controls, at one strength for all.

    p: one-sided, in the direction steered, by permutation of suspects and controls. difference:
    mean change of the suspects less the controls', with its interval. margin: the smallest
    difference that matters here. needs: what would decide it, where it is undecided. prompts: how
    many it was steered on.
    """

    suspects: Described
    p: float | None
    difference: float | None
    interval: Interval | None
    margin: float
    decision: Decision
    needs: str
    prompts: int
    latents: list[LatentVerdict]


@dataclass(frozen=True)
class ArmVerdict:
    """What one arm of a sweep proves.

    strength: at which all are compared, None where there is no such strength. within: the share of
    all candidates within the incoherence budget there. controls: each set of random latents;
    together they are what suspects are tested against. sets: suspects.
    """

    strength: float | None
    within: float | None
    controls: dict[str, Described]
    sets: dict[str, SetVerdict]

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> ArmVerdict:
        """Of what ``dataclasses.asdict`` made of it."""
        if stored["strength"] is None and stored["sets"]:
            raise TypeError("a verdict at no strength")
        return cls(
            stored["strength"],
            stored["within"],
            {name: _described(item) for name, item in stored["controls"].items()},
            {name: _set(item) for name, item in stored["sets"].items()},
        )


def _described(stored: dict[str, Any]) -> Described:
    return Described(**{**stored, "interval": _interval(stored["interval"])})


def _set(stored: dict[str, Any]) -> SetVerdict:
    return SetVerdict(
        **{
            **stored,
            "suspects": _described(stored["suspects"]),
            "interval": _interval(stored["interval"]),
            "latents": list(map(_latent, stored["latents"])),
        }
    )


def _latent(stored: dict[str, Any]) -> LatentVerdict:
    return LatentVerdict(**{**stored, "latent": read_latents(stored["latent"])})


def _interval(stored: list[float] | None) -> Interval | None:
    return None if stored is None else (stored[0], stored[1])
