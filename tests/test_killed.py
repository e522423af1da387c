"""Every command is killed at its operations on files, or finds the disk full there, and then ends
as if nothing had happened: at some of them, or, with DELTALENS_FUZZ=long, at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from helpers.processes import run_helper

LONG = os.environ.get("DELTALENS_FUZZ") == "long"


@pytest.mark.timeout(0 if LONG else 600)
@pytest.mark.parametrize(("how", "most"), [("kill", 4), ("full", 2)])
def test_it_goes_on_from_wherever_it_was(tmp_path: Path, how: str, most: int) -> None:
    done = run_helper(
        "kill_points", str(tmp_path), how, str(0 if LONG else most), OMP_NUM_THREADS="1"
    )
    assert done.returncode == 0, done.stderr
    tried = [line.split("\t") for line in done.stdout.splitlines()]
    assert len(tried) == 24
    assert [line for line in tried if line[-1] != "0"] == [], done.stderr
