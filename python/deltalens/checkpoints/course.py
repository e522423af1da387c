"""A latent's course over checkpoints."""

from __future__ import annotations

from dataclasses import dataclass

from deltalens.checkpoints.activation import Active, Source
from deltalens.checkpoints.attributed import Attributed
from deltalens.checkpoints.detected import Detected, Texts
from deltalens.checkpoints.steered import ArmState, Steered
from deltalens.trials.result import Direction


@dataclass(frozen=True)
class Checkpoint:
    """One model of the training run, and what there is of it.

    step: the number in its name, None where names tell none. pairs: how many it was attributed
    on; ranked: how many latents its ranking holds. activation: None without Δ-activation; arms:
    empty without a sweep; detection: None without held-out texts.
    """

    name: str
    step: float | None
    run: str
    model: str
    pairs: int
    ranked: int
    activation: Source | None
    arms: dict[Direction, ArmState]
    detection: Texts | None


@dataclass(frozen=True)
class State:
    """What one checkpoint's run says of one latent."""

    attribution: Attributed
    activation: Active | None
    steering: dict[Direction, Steered]
    detection: Detected | None


@dataclass(frozen=True)
class Course:
    """One latent: the tokens it promotes by the last run that ranks it, and its state at each
    checkpoint, in their order."""

    latent: int
    promotes: list[str]
    states: list[State]
