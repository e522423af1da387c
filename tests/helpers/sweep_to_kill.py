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
from typing import Any

import torch

from deltalens.trials import log as steering_log
from helpers.tiny_sweep import PROMPTS, run_sweep

ADAPTIVE: dict[str, Any] = {"adaptive": True, "prompts": PROMPTS * 5, "samples": 1}


def child(run: Path, options: dict[str, Any]) -> int:
    pid = os.fork()
    if pid:
        return pid
    torch.set_num_threads(1)
    steering_log._BATCH = 5  # so that a kill finds phases half written
    run_sweep(run, **options)
    os._exit(0)


def ended_well(pid: int) -> bool:
    return os.waitpid(pid, 0)[1] == 0


def uninterrupted(run: Path, options: dict[str, Any]) -> float:
    started = time.monotonic()
    assert ended_well(child(run, options))
    return time.monotonic() - started


def killed(run: Path, after: float, options: dict[str, Any]) -> bool:
    pid = child(run, options)
    time.sleep(after)
    os.kill(pid, signal.SIGKILL)
    return not ended_well(pid)


def main(directory: Path, points: int, options: dict[str, Any]) -> None:
    seconds = min(uninterrupted(directory / name, options) for name in ("whole", "again"))
    draw, kills, run = random.Random(), 0, 0
    while kills < points:
        place = directory / f"cut{run}"
        kills += killed(place, draw.uniform(0, seconds), options)
        kills += killed(place, draw.uniform(0, seconds), options)
        uninterrupted(place, options)
        run += 1


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), ADAPTIVE if sys.argv[3:] == ["adaptive"] else {})
