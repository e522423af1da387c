"""The one exception a caller can correct, and how errors quote what they found."""

from __future__ import annotations

from reprlib import Repr
from typing import Any

LONGEST_QUOTE = 120
LONGEST_MESSAGE = 2000


class InputError(ValueError):
    """Input that cannot be used: one line saying what was found and what to do about it.

    A message of several lines becomes one; more than 2000 characters are shortened in the middle.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(" ".join(_shortened(message, LONGEST_MESSAGE).splitlines()))


class Unfinished(InputError):
    """What could not be done for want of room or memory: the same call goes on once there is some,
    with all that is finished kept."""


def quoted(value: Any) -> str:
    """``repr(value)`` in at most 120 characters, however long, deep or shared its parts are."""
    try:
        return _shortened(_QUOTES.repr(value), LONGEST_QUOTE)
    except ValueError:  # of a number with thousands of digits
        return f"<{type(value).__name__} too long to show>"


def _shortened(text: str, most: int) -> str:
    half = most // 2
    return text if len(text) <= most else f"{text[: half - 1]}…{text[-half:]}"


class _Quotes(Repr):
    """Of at most four items of a container, and three containers within each other."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 3
        self.maxdict = self.maxlist = self.maxtuple = self.maxset = self.maxfrozenset = 4
        self.maxstring = self.maxother = self.maxlong = LONGEST_QUOTE

    def repr_int(self, x: int, level: int) -> str:
        return repr(x) if x.bit_length() < 400 else f"<a number of {x.bit_length()} bits>"


_QUOTES = _Quotes()
