"""JSON that others wrote, of bounded depth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from deltalens.errors import InputError, quoted

DEEPEST = 64


def parse_json(text: str | bytes) -> Any:
    """The value; :class:`InputError`, without a place, for what is no JSON or nested too deeply."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"not JSON ({_reason(error)})") from None
    opening = ("[", "{") if isinstance(text, str) else (b"[", b"{")
    if sum(map(text.count, opening)) > DEEPEST:  # type: ignore[arg-type]
        _check_depth(value)
    return value


def read_json(path: Path) -> Any:
    """The value in a UTF-8 file; :class:`InputError`, naming ``path``, where there is none."""
    try:
        return parse_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; check the path") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 (at byte {error.start}); convert it") from None
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, json.JSONDecodeError):
        return str(error)
    return quoted(str(error).partition(":")[0].partition(";")[0])[1:-1]


def _check_depth(value: Any) -> None:
    level = [value] if isinstance(value, list | dict) else []
    for _ in range(DEEPEST):
        lists = [part.values() if isinstance(part, dict) else part for part in level]
        level = [item for part in lists for item in part if isinstance(item, list | dict)]
        if not level:
            return
    raise InputError(f"not JSON (nested more than {DEEPEST} deep)")
