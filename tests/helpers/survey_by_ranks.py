"""Makes the small survey in several processes, as torchrun would."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import torch

from deltalens.ranks.processes import joined
from helpers.forked_ranks import launch
from helpers.tiny_survey import make_survey

row_store_module = importlib.import_module("deltalens.study.running.row_store")


def work(directory: Path, killed: int | None) -> None:
    """One process's part."""
    row_store_module.SHARD_PAIRS = 4
    torch.set_num_threads(1)
    with joined() as ranks:
        make_survey(directory, ranks=ranks, save_scores=True)


if __name__ == "__main__":
    for size in map(int, sys.argv[2:]):
        launch(size, Path(sys.argv[1]) / f"survey-{size}", job=work)
