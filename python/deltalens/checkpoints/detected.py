"""What the held-out texts in a run directory say of chosen latents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from deltalens.checkpoints.known import known
from deltalens.study.detection.result import Detection


@dataclass(frozen=True)
class Detected:
    """The chance that a held-out completion with the behaviour has a larger mean over its tokens
    than one without, and its 95 % interval, None where it is not known."""

    auc: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Texts:
    """What was told apart: held-out "pairs" or "answers", by "activation" or "projection", and how
    well the difference of means does it, None where that is not known."""

    held_out: str
    value: str
    shown: int
    absent: int
    mean_difference: Detected | None


def texts_of(found: Detection) -> Texts:
    """Of a run's file."""
    said = found.metadata
    return Texts(
        str(said.get("held_out")),
        said["value"],
        said["shown"],
        said["absent"],
        detected(found, [None]).get(None),
    )


def detected(found: Detection, latents: Sequence[int | None]) -> dict[int | None, Detected]:
    """Of those of the latents that were scored; None is the difference of means."""
    return {
        row.latent: Detected(row.auc, known(row.low), known(row.high))
        for row in found.of("completion", "mean")
        if row.latent in latents
    }
