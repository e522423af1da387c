"""Peak resident memory of a call, beyond what was resident before (Linux)."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path


def peak_bytes(work: Callable[[], object]) -> int:
    """Bytes by which the process's resident set grew at most while ``work`` ran."""
    ctypes.CDLL(None).malloc_trim(0)  # memory that was freed but kept would hide what is taken
    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM to the current size
    before = _status("VmRSS")
    work()
    return max(0, _status("VmHWM") - before)


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}")
