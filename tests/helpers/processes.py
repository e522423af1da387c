"""Helpers run as programs, in processes that may be killed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]


def environment(**changes: str) -> dict[str, str]:
    """This process's environment, in which ``helpers`` can be imported."""
    found = os.environ.get("PYTHONPATH")
    return os.environ | {
        "PYTHONPATH": os.pathsep.join([str(TESTS), *([found] if found else [])]),
        **changes,
    }


def run_helper(
    name: str, *arguments: str, timeout: float | None = None, **changes: str
) -> subprocess.CompletedProcess[str]:
    """``python -m helpers.NAME``, with ``changes`` to the environment."""
    return subprocess.run(
        [sys.executable, "-m", f"helpers.{name}", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
        env=environment(**changes),
    )
