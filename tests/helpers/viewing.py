"""Inspect's own viewer of logs, served to this machine."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_COMMAND = "from inspect_ai._cli.main import main; main()"
_SECONDS = 120.0


@contextmanager
def inspect_view(logs: Path, work: Path) -> Iterator[str]:
    """Its address; ended by its process id."""
    port = _free_port()
    argv = ["view", "start", "--log-dir", str(logs), "--port", str(port), "--host", "127.0.0.1"]
    with (work / "view.log").open("wb") as said:
        process = subprocess.Popen(
            [sys.executable, "-c", _COMMAND, *argv],
            stdout=said,
            stderr=said,
            cwd=work,
            env={**os.environ, "HOME": str(work), "XDG_DATA_HOME": str(work / "data")},
        )
        try:
            _wait(process, port, work / "view.log")
            yield f"http://127.0.0.1:{port}/"
        finally:
            process.terminate()
            process.wait(timeout=30)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _wait(process: subprocess.Popen[bytes], port: int, said: Path) -> None:
    end = time.monotonic() + _SECONDS
    while time.monotonic() < end:
        assert process.poll() is None, said.read_text()
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.2)
    raise AssertionError(said.read_text())
