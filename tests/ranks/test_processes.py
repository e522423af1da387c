"""How processes that torchrun has started meet, and part."""

from __future__ import annotations

import json

from helpers.processes import run_helper


def test_threads_that_exchanged_something_end_with_the_meeting(tmp_path):
    """One that lets go of a tensor while the interpreter ends would abort the process."""
    done = run_helper("meeting", str(tmp_path), OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    for rank in range(2):
        found = json.loads((tmp_path / f"{rank}.json").read_text())
        assert found["default group kept"]
        assert not found["ours kept"]
        before, within, after = found["threads"]
        assert before == 0 < within - after == after
