"""Lines of ``latents.jsonl``, checked when they are read again."""

from __future__ import annotations

from typing import Any

from deltalens.errors import InputError

_COUNTS = ("tokens", "active", "windows")
_NUMBERS = ("frequency", "mean", "max")
_LENS = ("promotes", "suppresses")


def checked_line(row: dict[str, Any]) -> dict[str, Any]:
    """``row``; :class:`InputError`, without its place, where it is no latent's line."""
    if not _is_whole(row.get("latent")):
        raise InputError("damaged: no number of a latent; collect the examples again")
    lens = all(_are(row.get(name, []), _is_lens_token) for name in _LENS)
    if not lens or ("examples" in row and not _are_examples(row["examples"])):
        raise InputError(
            f"damaged: what it says of latent {row['latent']} is incomplete; "
            "collect the examples again"
        )
    return row


def _are_examples(found: Any) -> bool:
    return (
        isinstance(found, dict)
        and all(_is_whole(found.get(name)) for name in _COUNTS)
        and all(_is_number(found.get(name)) for name in _NUMBERS)
        and _are(found.get("histogram"), _is_bin)
        and _are(found.get("top"), _is_window)
        and _are(found.get("quantiles"), _is_group)
    )


def _is_group(group: Any) -> bool:
    return (
        isinstance(group, dict)
        and _is_number(group.get("least"))
        and _is_number(group.get("largest"))
        and _are(group.get("windows"), _is_window)
    )


def _is_window(window: Any) -> bool:
    return (
        isinstance(window, dict)
        and all(_is_whole(window.get(name)) for name in ("text", "position", "peak"))
        and _is_number(window.get("activation"))
        and _are(window.get("tokens"), lambda token: isinstance(token, str))
        and _are(window.get("activations"), _is_number)
        and len(window["tokens"]) == len(window["activations"])
    )


def _is_bin(pair: Any) -> bool:
    return isinstance(pair, list) and len(pair) == 2 and all(map(_is_number, pair))


def _is_lens_token(token: Any) -> bool:
    return isinstance(token, list) and len(token) == 3 and isinstance(token[0], str)


def _are(items: Any, kind: Any) -> bool:
    return isinstance(items, list) and all(map(kind, items))


def _is_whole(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 62


def _is_number(value: Any) -> bool:
    return type(value) is float or (type(value) is int and abs(value) < 1 << 62)
