"""Sweeps with neutral texts in several processes."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from deltalens.ranks.processes import joined
from helpers.forked_ranks import launch
from helpers.tiny_sweep import NEUTRAL, run_sweep


def work(directory: Path, killed: int | None) -> None:
    torch.set_num_threads(1)
    with joined() as ranks:
        run_sweep(directory, ranks=ranks, neutral=NEUTRAL)


if __name__ == "__main__":
    for size in (1, 3):
        launch(size, Path(sys.argv[1]) / f"run-{size}", job=work)
