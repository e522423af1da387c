"""A latent's course over checkpoints, in memory and as plain values."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from deltalens.checkpoints.activation import Active, Source
from deltalens.checkpoints.attributed import Attributed
from deltalens.checkpoints.detected import Detected, Texts
from deltalens.checkpoints.rows import COLUMNS, rows_of
from deltalens.checkpoints.shown import checkpoints_view
from deltalens.checkpoints.steered import ArmState, Steered
from deltalens.errors import InputError
from deltalens.trials.result import Direction
from deltalens.visible.frame import frame_of_rows


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


@dataclass(frozen=True)
class CheckpointComparison:
    """Latents of one SAE (its fingerprint) at one site over the checkpoints of a training run.

    notes: what differs between runs beside the model, a line each.
    """

    site: str
    sae: str
    n_latents: int
    checkpoints: list[Checkpoint]
    courses: list[Course]
    notes: list[str]

    def course(self, latent: int) -> Course:
        """Of one latent; :class:`InputError` where it is not among those compared."""
        for course in self.courses:
            if course.latent == latent:
                return course
        raise InputError(f"latent {latent} is not compared; name it in latents")

    def to_pandas(self) -> Any:
        """A ``pandas.DataFrame`` with the rows and columns of the CSV, of texts as they are.

        Raises :class:`InputError` where there is no pandas.
        """
        return frame_of_rows(COLUMNS, list(rows_of(self)))

    def _repr_html_(self) -> str:
        return checkpoints_view(self).html()

    def as_dict(self) -> dict[str, Any]:
        """Plain values; what is not known is None."""
        return asdict(self)
