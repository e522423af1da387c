"""Neutral texts that were read with steering, on disk: appended as they come, never rewritten."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from deltalens.cost.dry_run import is_dry
from deltalens.errors import InputError
from deltalens.storage.atomic import write_text
from deltalens.storage.json_text import read_json
from deltalens.storage.jsonl import Row, parse_lines
from deltalens.storage.line_log import append_rows
from deltalens.storage.parts import parts_of
from deltalens.trials.conditions import Condition
from deltalens.trials.result import SIGNS, STEERING_DIRECTORY, Direction
from deltalens.trials.together.latents import members, read_latents

NEUTRAL_DIRECTORY, SETTINGS_FILE = "neutral", "settings.json"
_LARGEST = 1 << 48  # of any number in a log: beyond it, it is damaged


class TextAt(NamedTuple):
    """A text with a condition."""

    condition: Condition
    text: int


@dataclass(frozen=True)
class TextEffect:
    """What a text's ``tokens`` predicted tokens cost, in nats, with a condition and, read beside
    it, without; and how many would be others, chosen greedily."""

    loss: float
    unsteered: float
    changed: int
    tokens: int


Effects = dict[TextAt, TextEffect]


def effects_path(run: str | Path, direction: Direction) -> Path:
    """Where those of one arm are."""
    return _folder(run) / f"{direction}.jsonl"


def append_effects(
    path: Path, text: int, conditions: Sequence[Condition], effects: Sequence[TextEffect]
) -> None:
    """One line for a text with several conditions; it is on disk when this returns."""
    steered = [
        [list(condition), effect.loss, effect.unsteered, effect.changed]
        for condition, effect in zip(conditions, effects, strict=True)
    ]
    append_rows(path, [{"text": text, "tokens": effects[0].tokens, "steered": steered}])


def read_effects(path: Path) -> Effects:
    """All there are, but for a line that was cut while it was written."""
    if not path.exists():
        return {}
    found: Effects = {}
    for effects in parse_lines(path, _parse, ended=True):
        found |= effects
    return found


def _parse(row: Row) -> Effects:
    try:
        text, tokens = _whole(row["text"]), _whole(row["tokens"])
        if not tokens:
            raise ValueError
        return {
            TextAt(_condition(condition), text): TextEffect(
                _number(loss), _number(unsteered), _whole(changed), tokens
            )
            for condition, loss, unsteered, changed in row["steered"]
        }
    except (KeyError, TypeError, ValueError):
        raise InputError("is no record of neutral text; delete the file and steer again") from None


def _condition(stored: Any) -> Condition:
    latents, strength = stored
    read = read_latents(latents)
    if any(abs(sign) != 1 for _, sign in members(read)):
        raise ValueError
    for latent, _ in members(read):
        _whole(latent)
    return Condition(read, _number(strength))


def _whole(value: Any) -> int:
    if type(value) is not int or not 0 <= value < _LARGEST:
        raise TypeError
    return value


def _number(value: Any) -> float:
    if type(value) not in (int, float) or not abs(value) < _LARGEST:
        raise TypeError
    return value


def keep_texts(run: Path, wanted: dict[str, Any]) -> None:
    """Write down which texts they are, or hold them against those that have been read.

    Raises :class:`InputError` where those are others.
    """
    path = _folder(run) / SETTINGS_FILE
    there = read_json(path) if path.exists() else None
    if there == wanted:
        return
    if there is not None and any(_begun(effects_path(run, direction)) for direction in SIGNS):
        raise InputError(
            f"{path.parent} holds what steering did to other neutral texts; use the same, or "
            "delete it"
        )
    if not is_dry():
        write_text(path, json.dumps(wanted, indent=1) + "\n")


def _begun(path: Path) -> bool:
    return any(log.exists() and log.stat().st_size for log in (path, *parts_of(path)))


def _folder(run: str | Path) -> Path:
    return Path(run) / STEERING_DIRECTORY / NEUTRAL_DIRECTORY


def texts_kept(run: str | Path) -> int:
    """How many texts there are; 0 where none have been given."""
    path = _folder(run) / SETTINGS_FILE
    if not path.exists():
        return 0
    try:
        return _whole(read_json(path)["texts"])
    except (KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged; delete {path.parent} and steer again") from error
