"""Checkpoints side by side as files: a table, a figure and JSON."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

from deltalens.checkpoints import CheckpointComparison
from deltalens.checkpoints.figure import checkpoints_figure
from deltalens.checkpoints.table import as_csv
from deltalens.ranks.alone import alone
from deltalens.ranks.ranks import ALONE
from deltalens.report.figures import save_figure
from deltalens.storage.atomic import write_text
from deltalens.storage.lock import lock_in

NAME = "checkpoints"


def write_checkpoints(found: CheckpointComparison, directory: str | Path) -> list[Path]:
    """Write ``checkpoints.csv``, ``.svg``, ``.png`` and ``.json`` into ``directory``.

    The table has a row for each latent at each checkpoint, the figure a panel for each quantity
    with a line for each of the first latents. Returns the paths; raises :class:`InputError` where
    they cannot be written.
    """
    directory = Path(directory)
    with alone(lock_in(directory), ALONE):
        write_text(directory / f"{NAME}.csv", as_csv(found))
        save_figure(directory, NAME, partial(checkpoints_figure, found))
        text = json.dumps(found.as_dict(), indent=1, ensure_ascii=False, allow_nan=False)
        write_text(directory / f"{NAME}.json", text + "\n")
    return [directory / f"{NAME}.{ending}" for ending in ("csv", "svg", "png", "json")]
