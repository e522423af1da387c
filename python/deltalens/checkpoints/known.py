"""Numbers that are known, and None for those that are not."""

from __future__ import annotations

import math


def known(value: float) -> float | None:
    """The number, None for NaN and infinity, which JSON lacks."""
    return float(value) if math.isfinite(value) else None
