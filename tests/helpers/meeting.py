"""What is left of a process's meeting with others, where somebody keeps torch's default group."""

from __future__ import annotations

import importlib
import inspect
import json
import sys
from pathlib import Path

from deltalens.ranks.processes import Processes, joined
from helpers.forked_ranks import launch


def exchanging_threads() -> int:
    """Of this process: gloo's, which do what is exchanged."""
    tasks = Path("/proc/self/task").glob("*/comm")
    return sum(task.read_text().startswith("pt_gloo_runloop") for task in tasks)


def meet(directory: Path, killed: int | None) -> None:
    before = exchanging_threads()
    with joined() as ranks:
        assert isinstance(ranks, Processes)
        functions = importlib.import_module("torch.distributed.nn.functional")
        assert ranks.gather(ranks.rank) == [0, 1]
        within = exchanging_threads()
    kept = inspect.signature(functions.broadcast).parameters["group"].default
    found = {
        "default group kept": kept is not None,
        "ours kept": ranks.group() is not None,
        "threads": [before, within, exchanging_threads()],
    }
    (directory / f"{ranks.rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    launch(2, Path(sys.argv[1]), job=meet)
