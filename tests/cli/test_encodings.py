"""What is printed into a file or a pipe is UTF-8, whatever the system's encoding."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_into_a_pipe_everything_can_be_printed(encoding: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "deltalens", "plan", "--help"],
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONIOENCODING": encoding},
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert "cuda …" in done.stdout.decode("utf-8")
