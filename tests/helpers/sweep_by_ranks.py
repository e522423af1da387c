"""Sweeps in several processes."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from deltalens.ranks.processes import joined
from helpers.forked_ranks import launch
from helpers.tiny_sweep import run_sweep


def work(directory: Path, killed: int | None) -> None:
    torch.set_num_threads(1)
    with joined() as ranks:
        run_sweep(directory, ranks=ranks)


if __name__ == "__main__":
    for size in (1, 2, 3):
        launch(size, Path(sys.argv[1]) / f"run-{size}", job=work)
