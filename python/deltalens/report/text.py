"""Model text and numbers as the page shows them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deltalens.lm.pairs import is_chat
from deltalens.visible import visible

TEXT_SHOWN = 1500  # characters of one prompt or completion


def readable(text: str, limit: int = TEXT_SHOWN) -> str:
    """``text`` with its line breaks, hidden and control characters as escapes, cut to ``limit``."""
    shown = "\n".join(map(visible, text[:limit].split("\n")))
    left = len(text) - limit
    return shown if left <= 0 else f"{shown} … [{left:,} more characters]"


def messages(prompt: Any) -> list[list[str]]:
    """(role, text) of a prompt's messages; the role of a plain prompt is empty."""
    if is_chat(prompt):
        return [[readable(item["role"], 40), readable(item["content"])] for item in prompt]
    return [["", completion(prompt)]]


def completion(text: str | Sequence[int]) -> str:
    """A completion's text, or its token ids where that is all there is."""
    if isinstance(text, str):
        return readable(text)
    return readable("token ids " + " ".join(map(str, text)))


def place_name(place: str, limit: int = 200) -> str:
    """A hub id or relative path as it is; of an absolute path its last part."""
    path = Path(place)
    return readable(path.name if path.is_absolute() else place, limit)


def short(value: float) -> float | None:
    """Four significant digits; None, JSON's null, for what is no number."""
    return float(f"{value:.4g}") if math.isfinite(value) else None


def exact(value: float) -> float | None:
    """The number itself; None, JSON's null, for what is no number."""
    return value if math.isfinite(value) else None


def points(share: float) -> str:
    """A change of a rate in percentage points, with a true minus sign."""
    return f"{100 * share:+.1f}".replace("-", "−")
