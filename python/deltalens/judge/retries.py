"""When a request to an endpoint is worth another try, and what is said when it is not."""

from __future__ import annotations

import math
import random
import time
from email.utils import mktime_tz, parsedate_tz
from typing import Any

from deltalens.errors import quoted

LONGEST_BACKOFF = 60.0  # seconds
LONGEST_WAIT = 600.0  # seconds that a server may ask for
_TRANSIENT = (408, 409, 425, 429)
_WORDS_AT = ("message", "detail", "error")


def is_transient(error: Exception) -> bool:
    """Whether the same request may succeed later."""
    status = getattr(error, "status_code", None)
    if status is None:  # no answer, or one that is no chat completion
        return True
    if getattr(error, "code", None) == "insufficient_quota":
        return False
    return status in _TRANSIENT or status >= 500


def next_delay(error: Exception, failures: int, first: float) -> float | None:
    """Seconds until another try after ``failures`` failed ones; None when none is worth it.

    What the server asks for or, where it does not, ``first`` · 2^(failures − 1), up to a minute;
    a random part keeps many requests from coming back at once.
    """
    if not is_transient(error):
        return None
    asked = asked_delay(error)
    if asked is not None:
        return None if asked > LONGEST_WAIT else asked + first * random.random()
    return min(LONGEST_BACKOFF, first * 2 ** (failures - 1)) * random.uniform(0.5, 1.0)


def asked_delay(error: Exception) -> float | None:
    """Seconds that the response's Retry-After asks for, given as seconds or as a date."""
    response = getattr(error, "response", None)
    if response is None:
        return None
    milliseconds = _number(response.headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    text = response.headers.get("retry-after")
    seconds = _number(text)
    return _until(text) if seconds is None and text is not None else seconds


def _until(date: str) -> float | None:
    try:
        parsed = parsedate_tz(date)
        return None if parsed is None else max(0.0, mktime_tz(parsed) - time.time())
    except (IndexError, OverflowError, TypeError, ValueError):
        return None


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None


def said_by(error: Any) -> str:
    """The server's own words, wherever it put them, else the client's."""
    body = getattr(error, "body", None)
    if isinstance(body, dict):
        body = next((body[name] for name in _WORDS_AT if body.get(name)), None)
    body = body or getattr(error, "message", str(error))
    return body if isinstance(body, str) else quoted(body)


def remedy(error: Any, model: str, key_env: str) -> str:
    """What a user can do about an error that ended the judging."""
    status = getattr(error, "status_code", None)
    if status in (401, 403):
        return f"set ${key_env} to a key that may use {model}"
    if status == 404:
        return f"check that the endpoint ends in /v1 or the like, and that it serves {model}"
    if getattr(error, "code", None) == "insufficient_quota":
        return "raise the account's quota and run the same command again"
    if not is_transient(error):
        return "change the request's options or use another model"
    return "answers so far are kept; run the same command again later"
