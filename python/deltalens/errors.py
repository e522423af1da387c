"""The one exception a caller can correct."""

from __future__ import annotations


class InputError(ValueError):
    """Input that cannot be used: one line saying what was found and what to do about it."""
