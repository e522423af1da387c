"""Numbers and tokens as tables show them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any


def number(value: float) -> str:
    """Three significant digits with a sign."""
    return "–" if math.isnan(value) else f"{value:+.2e}"


def p_value(value: float) -> str:
    """Two significant digits."""
    return "–" if math.isnan(value) else f"{value:.2g}"


def tokens(items: Sequence[Any], count: int = 5) -> str:
    """The first few tokens of a logit lens, quoted where spaces matter."""
    return " ".join(repr(item.text)[1:-1] or "''" for item in items[:count])
