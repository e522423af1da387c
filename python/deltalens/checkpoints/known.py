"""Numbers that are known, and None for those that are not."""

from __future__ import annotations

import math


def known(value: float) -> float | None:
    """The number, None for NaN."""
    return None if math.isnan(value) else float(value)
