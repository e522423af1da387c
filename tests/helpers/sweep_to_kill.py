"""Runs small sweeps in children that are killed at random moments, and started again.

A child is a fork of a process that has imported everything and computed nothing.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from deltalens.trials import log as steering_log
from helpers.tiny_sweep import run_sweep


def child(run: Path) -> int:
    pid = os.fork()
    if pid:
        return pid
    torch.set_num_threads(1)
    steering_log._BATCH = 5  # so that a kill finds phases half written
    run_sweep(run)
    os._exit(0)


def ended_well(pid: int) -> bool:
    return os.waitpid(pid, 0)[1] == 0


def uninterrupted(run: Path) -> float:
    started = time.monotonic()
    assert ended_well(child(run))
    return time.monotonic() - started


def killed(run: Path, after: float) -> bool:
    pid = child(run)
    time.sleep(after)
    os.kill(pid, signal.SIGKILL)
    return not ended_well(pid)


def main(directory: Path, points: int) -> None:
    seconds = min(uninterrupted(directory / name) for name in ("whole", "again"))
    draw, kills, run = random.Random(), 0, 0
    while kills < points:
        place = directory / f"cut{run}"
        kills += killed(place, draw.uniform(0, seconds))
        kills += killed(place, draw.uniform(0, seconds))
        uninterrupted(place)
        run += 1


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
