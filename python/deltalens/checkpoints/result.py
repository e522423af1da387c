"""Latents over checkpoints, in memory and as plain values."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from deltalens.checkpoints.course import Checkpoint, Course
from deltalens.checkpoints.rows import COLUMNS, rows_of
from deltalens.checkpoints.shown import checkpoints_view
from deltalens.errors import InputError
from deltalens.visible.frame import frame_of_rows
from deltalens.visible.shown import Shown
from deltalens.visible.view import View


@dataclass(frozen=True)
class CheckpointComparison(Shown):
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

    def plot(self) -> Any:
        """A matplotlib figure of the first latents, a panel for each quantity that is known; it
        shows itself in a notebook."""
        from deltalens.checkpoints.figure import checkpoints_figure
        from deltalens.visible.figures.style import style

        with style("plot"):
            return checkpoints_figure(self)

    def _view(self) -> View:
        return checkpoints_view(self)

    def as_dict(self) -> dict[str, Any]:
        """Plain values; what is not known is None."""
        return asdict(self)
