"""What was told apart, in memory and in a run directory."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from deltalens.errors import InputError
from deltalens.ranks.alone import alone
from deltalens.ranks.ranks import ALONE
from deltalens.storage.atomic import write_text
from deltalens.storage.json_text import parse_json
from deltalens.storage.lock import lock_in
from deltalens.storage.typed import checked_types
from deltalens.study.detection.shown import detection_view
from deltalens.visible.frame import frame_of_rows
from deltalens.visible.shown import Shown
from deltalens.visible.view import View

TABLE_FILE = "detection.csv"
ABOUT_FILE = "detection.json"
Detector = Literal["latent", "mean difference"]
MEAN_DIFFERENCE: Detector = "mean difference"

Where = Literal["completion", "prompt"]
Over = Literal["mean", "max"]


@dataclass(frozen=True)
class Told:
    """How well one score tells texts with the behaviour from those without.

    detector: "latent", or "mean difference"; rank: of the latent in the run, from 1; tokens: whose
    values are scored; over: the mean over them, or the largest. auc: the chance that a text with
    the behaviour scores higher than one without, its 95 % interval (NaN where it is not known) and
    standard error.
    """

    detector: Detector
    rank: int | None
    latent: int | None
    tokens: Where
    over: Over
    auc: float
    low: float
    high: float
    stderr: float

    @property
    def differs(self) -> bool:
        """Whether the interval leaves out ½."""
        return self.low > 0.5 or self.high < 0.5


_COLUMNS = tuple(field.name for field in fields(Told))
_COUNTS = ("shown", "absent", "prompts", "left_out", "trained_on")


@dataclass(frozen=True)
class Detection(Shown):
    """rows: the mean difference first, then latents, ranked ones in their order.

    metadata: ``value``, what a latent's values are ("activation", or "projection" and ``why``);
    ``held_out``, "pairs" or "answers"; how many completions were ``shown`` and ``absent`` to how
    many ``prompts``; ``left_out`` for prompts of the run's pairs; ``best_by_prompt``, the largest
    AUC that any score of prompts could have on these answers.
    """

    rows: list[Told]
    metadata: dict[str, Any]

    def of(self, tokens: Where, over: Over) -> Iterator[Told]:
        """The rows of one kind of score."""
        return (row for row in self.rows if (row.tokens, row.over) == (tokens, over))

    def of_latent(self, latent: int | None) -> list[Told]:
        """A latent's rows, or with None those of the mean difference."""
        return [row for row in self.rows if row.latent == latent]

    def to_pandas(self) -> Any:
        """A ``pandas.DataFrame`` with the rows and columns of ``detection.csv``.

        Raises :class:`InputError` where there is no pandas.
        """
        return frame_of_rows(_COLUMNS, list(map(asdict, self.rows)))

    def _view(self) -> View:
        return detection_view(self)

    def save(self, directory: str | Path) -> None:
        """Write ``detection.csv`` and then ``detection.json`` of a run directory."""
        directory = Path(directory)
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(_COLUMNS)
        for row in self.rows:
            values = [getattr(row, name) for name in _COLUMNS]
            writer.writerow(["" if value is None else value for value in values])
        about = json.dumps({**self.metadata, "rows": len(self.rows)}, indent=2, ensure_ascii=False)
        with alone(lock_in(directory), ALONE):
            (directory / ABOUT_FILE).unlink(missing_ok=True)  # not to go with another table
            write_text(directory / TABLE_FILE, text.getvalue())
            write_text(directory / ABOUT_FILE, about + "\n")


def read_detection(directory: str | Path) -> Detection | None:
    """What :meth:`Detection.save` wrote into a run directory, None where nothing was.

    Raises :class:`InputError` for damaged files.
    """
    path = Path(directory) / ABOUT_FILE
    if not path.exists():
        return None
    try:
        about = dict(parse_json(path.read_text(encoding="utf-8")))
        with (path.parent / TABLE_FILE).open(encoding="utf-8", newline="") as stream:
            rows = list(map(_told, csv.DictReader(stream)))
        if about.pop("rows") != len(rows):
            raise ValueError(f"{TABLE_FILE} has {len(rows)} rows")
        _check_about(about)
    except Exception as error:  # a damaged file fails in many ways
        raise InputError(
            f"{path.parent / TABLE_FILE} or {ABOUT_FILE} is damaged: {error}; detect again"
        ) from error
    return Detection(rows, about)


def _told(row: dict[str, str]) -> Told:
    values: dict[str, Any] = {name: row[name] for name in _COLUMNS}
    values |= {name: int(row[name]) if row[name] else None for name in ("rank", "latent")}
    values |= {name: float(row[name]) for name in ("auc", "low", "high", "stderr")}
    found: Told = checked_types(Told(**values))
    if not 0 <= found.auc <= 1 or math.isinf(found.low + found.high + found.stderr):
        raise ValueError("an AUC is no probability")
    if (found.latent is None) != (found.detector == MEAN_DIFFERENCE):
        raise ValueError("a row is of no latent")
    return found


def _check_about(about: dict[str, Any]) -> None:
    if any(type(about.get(name)) is not int for name in _COUNTS):
        raise ValueError("it does not say of what")
    if about.get("value") not in ("activation", "projection"):
        raise ValueError("it does not say what was scored")
    if type(about.get("best_by_prompt", 0.5)) not in (int, float):
        raise ValueError("the best AUC is no number")
