"""Every command begun twice in one directory: the second goes away with one line that names the
first, or does no harm, and what is there in the end is what one alone writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.processes import run_helper

REPLACES = {"transposed copy", "export", "an SAE"}  # whole files, without a run to guard


@pytest.mark.timeout(600)
def test_the_second_goes_away_or_does_no_harm(tmp_path: Path) -> None:
    done = run_helper("races", str(tmp_path), "3", OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    tried = [line.split("\t") for line in done.stdout.splitlines()]
    assert len(tried) == 24
    assert [line for line in tried if line[-1] != "0"] == [], done.stdout
    turned_away = {name for name, _, refused, _ in tried if int(refused) >= 2}
    assert turned_away == {name for name, *_ in tried} - REPLACES
