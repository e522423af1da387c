"""Every Triton kernel on this device against fp64; exits with 1 when one is wrong.

The checks are those of `deltalens doctor`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from deltalens.engine.trust.check import Check
from deltalens.engine.trust.examination import checks_of, subjects
from gpu_device import DEVICE, Row, show, write_results


def checks() -> Iterator[Check]:
    for subject in subjects(DEVICE):
        if subject.impl == "triton":
            for group in checks_of(subject):
                yield from group


def row(check: Check) -> Row:
    return {"kernel": check.kernel, "dtype": check.dtype, "parts": check.parts,
            "shape": check.shape, "error": f"{check.error:.1e}", "limit": f"{check.limit:.1e}",
            "ok": check.ok, "note": check.note}  # fmt: skip


def main() -> int:
    rows = [row(check) for check in checks()]
    wrong = [each for each in rows if not each["ok"]]
    write_results("checks", rows)
    show(f"{len(rows) - len(wrong)} of {len(rows)} checks hold", wrong or rows[-16:])
    return 1 if wrong or not rows else 0


if __name__ == "__main__":
    sys.exit(main())
