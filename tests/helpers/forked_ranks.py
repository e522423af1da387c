"""Processes that find each other as torchrun's do, forked from one that has imported everything.

torchrun's own agent can fork them too, but it has threads, and a lock that one of them holds at
that moment (the name resolver's, for one) stays locked in the child.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Callable
from multiprocessing.connection import wait
from pathlib import Path

Job = Callable[[Path, int | None], None]


class RankFailed(Exception):
    """One of the processes ended otherwise than by finishing; the others were ended."""


def launch(processes: int, directory: Path, killed: int | None = None, *, job: Job) -> None:
    """Let so many processes do ``job``, each with the environment that torchrun would give it."""
    threads = [path.read_text() for path in Path("/proc/self/task").glob("*/comm")]
    assert len(threads) <= 1, f"not to be forked from, with threads {threads}"
    fork, port = multiprocessing.get_context("fork"), _free_port()
    started = [
        fork.Process(target=_rank, args=(rank, processes, port, job, directory, killed))
        for rank in range(processes)
    ]
    for process in started:
        process.start()
    running = list(started)
    while running and not any(process.exitcode for process in started):
        wait([process.sentinel for process in running])
        running = [process for process in running if process.exitcode is None]
    for process in running:
        process.terminate()
        process.join()
    if any(process.exitcode for process in started):
        raise RankFailed([process.exitcode for process in started])


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def _rank(
    rank: int, processes: int, port: int, job: Job, directory: Path, killed: int | None
) -> None:
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    job(directory, killed)
