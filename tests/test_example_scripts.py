"""The examples run as they are, without a network."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
EXPECTED = {
    "own_rows.py": r"the set is proven to be the exact top 5",
    "saelens_sae.py": r"explains 9\d% .*top 5 by Δ-attribution: \[\d+, \d+, \d+, \d+, \d+\]",
    "survey.py": r"bad advice +\d+\*? .*good for good +0 +0 +0 +0 .*opens 12 reports",
    "steering_vector.py": r"misaligned: (\d+)% bad answers, (\d+)% .*base: (\d+)% .* (\d+)% with",
}


def test_every_example_is_run() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_example(name: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, EXAMPLES / name],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONIOENCODING": "utf-8"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = re.search(EXPECTED[name], done.stdout, re.DOTALL)
    assert found is not None, done.stdout
    assert list(tmp_path.iterdir()) == []
    if found.groups():
        plain, away, base, toward = map(int, found.groups())
        assert away < plain
        assert toward > base
