"""Logs that are only appended to: when lines are written."""

from __future__ import annotations

from contextlib import suppress

import pytest

from deltalens.storage import line_log
from deltalens.storage.line_log import Batched


def test_batches_are_written_when_full_when_late_and_at_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now, written = [100.0], []
    monkeypatch.setattr(line_log.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(line_log, "_BATCH", 3)
    with suppress(KeyboardInterrupt), Batched[int](written.append) as log:
        for item in range(4):
            log.add(item)
        assert written == [[0, 1, 2]]
        now[0] += line_log._SECONDS + 0.1
        log.add(4)
        assert written == [[0, 1, 2], [3, 4]]
        log.add(5)
        raise KeyboardInterrupt
    assert written == [[0, 1, 2], [3, 4], [5]]
