"""What the sweep in a run directory says of chosen latents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deltalens.checkpoints.known import known
from deltalens.trials.effects import Effect, arm_effects
from deltalens.trials.result import (
    STEERING_DIRECTORY,
    SUMMARY_FILE,
    Arm,
    Direction,
    SweepResult,
)


@dataclass(frozen=True)
class Steered:
    """One latent at the strength where its arm compares all: +1 in ``sign`` where it was added to
    bring the behaviour, −1 where it was subtracted; change of the behaviour's rate with its 95 %
    interval, and p, the rank of it among random latents', None for one that is no suspect."""

    sign: int
    change: float
    low: float
    high: float
    p: float | None


@dataclass(frozen=True)
class ArmState:
    """An arm of a checkpoint's sweep: which model was steered and how, the strength that all
    latents are compared at in the intervention's unit (None where there is none), the median
    residual norm, and the unsteered model's rate of the behaviour with Wilson's 95 % interval."""

    model: str
    intervention: str
    strength: float | None
    norm: float | None
    rate: float | None
    low: float
    high: float


def read_sweep(run: Path) -> SweepResult | None:
    """The finished sweep in ``run``, None where there is none."""
    if not (run / STEERING_DIRECTORY / SUMMARY_FILE).exists():
        return None
    return SweepResult.load(run)


def arm_states(found: SweepResult) -> dict[Direction, ArmState]:
    """Of each direction."""
    return {direction: _arm_state(found, arm) for direction, arm in found.arms.items()}


def _arm_state(found: SweepResult, arm: Arm) -> ArmState:
    verdict, rate = found.verdicts.get(arm.direction), arm.unsteered.behaviour
    strength = None if verdict is None or verdict.strength is None else known(verdict.strength)
    return ArmState(
        arm.model,
        found.intervention,
        strength,
        known(arm.norm),
        known(rate.value),
        *rate.interval,
    )


def steered(
    found: SweepResult, run: Path, latents: Sequence[int]
) -> dict[int, dict[Direction, Steered]]:
    """Of each latent in each direction that it was steered in; of one that was tried with both
    signs as the first set has it."""
    states: dict[int, dict[Direction, Steered]] = {latent: {} for latent in latents}
    for direction in found.arms:
        for effect in arm_effects(found, run, direction):
            if effect.candidate.latent in states and effect.interval is not None:
                states[effect.candidate.latent].setdefault(direction, _steered(effect))
    return states


def _steered(effect: Effect) -> Steered:
    assert effect.change is not None
    assert effect.interval is not None
    return Steered(effect.candidate.sign, effect.change, *effect.interval, effect.p)
