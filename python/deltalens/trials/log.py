"""Steered completions and their verdicts on disk: appended as they come, never rewritten."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from deltalens.errors import InputError
from deltalens.judge import Outcome, Verdict
from deltalens.storage.jsonl import Row, parse_lines
from deltalens.storage.line_log import append_rows
from deltalens.trials.result import STEERING_DIRECTORY, Direction
from deltalens.trials.together.latents import Latents, members, read_latents


class Key(NamedTuple):
    """Which completion: of which condition, prompt and sample, and which attempt at it.

    latent None and strength 0: the unsteered model. strength is signed.
    """

    latent: Latents | None
    strength: float
    prompt: int
    sample: int
    attempt: int


@dataclass(frozen=True)
class Completion:
    """One completion and the seed of its stream of random numbers.

    tokens: how many were drawn, without an end-of-text token; None where that was not kept.
    """

    key: Key
    seed: int
    text: str
    tokens: int | None = None


def completions_path(run: str | Path, direction: Direction) -> Path:
    """Where the completions of one arm are."""
    return Path(run) / STEERING_DIRECTORY / f"{direction}.jsonl"


def verdicts_path(run: str | Path, direction: Direction, judge: str) -> Path:
    """Where one judge's verdicts on them are."""
    return Path(run) / STEERING_DIRECTORY / f"{direction}.{judge}.jsonl"


def read_graded(
    run: str | Path, direction: Direction, judge: str
) -> dict[Key, tuple[Completion, Verdict]]:
    """The completions of one arm that ``judge``, as a sweep's settings identify it, has graded."""
    verdicts = read_verdicts(verdicts_path(run, direction, judge))
    completions = read_completions(completions_path(run, direction))
    return {
        key: (completion, verdicts[key])
        for key, completion in completions.items()
        if key in verdicts
    }


def append_completions(path: Path, completions: Iterable[Completion]) -> None:
    """Add lines; they are on disk when this returns."""
    append_rows(path, map(_completion_row, completions))


def _completion_row(completion: Completion) -> Row:
    row = {**completion.key._asdict(), "seed": completion.seed, "text": completion.text}
    return row if completion.tokens is None else {**row, "tokens": completion.tokens}


def append_verdicts(path: Path, verdicts: Iterable[tuple[Key, Verdict]]) -> None:
    """Add lines; they are on disk when this returns."""
    append_rows(path, ({**key._asdict(), **asdict(verdict)} for key, verdict in verdicts))


def read_completions(path: Path) -> dict[Key, Completion]:
    """Every completion there is, but for a line that was cut while it was written."""
    return {
        key: Completion(key, row["seed"], row["text"], _count(row.get("tokens")))
        for key, row in _rows(path, {"seed": int, "text": str})
    }


def _count(stored: Any) -> int | None:
    if stored is not None and (type(stored) is not int or not 0 <= stored < 1 << 63):
        raise InputError("is damaged: it counts no tokens; choose another run directory")
    return stored


def read_verdicts(path: Path) -> dict[Key, Verdict]:
    """Every verdict there is, but for a line that was cut while it was written."""
    fields = ("label", "outcome", "score", "raw")
    kinds = {"label": str, "outcome": str, "score": object, "raw": str}
    return {key: Verdict(*(row[name] for name in fields)) for key, row in _rows(path, kinds)}


def both_attempts(verdicts: Mapping[Key, Verdict], key: Key) -> tuple[Outcome, Outcome]:
    """The outcomes of the first and of the last attempt at the sample of ``key``, a first one."""
    first = verdicts[key].outcome
    while (later := key._replace(attempt=key.attempt + 1)) in verdicts:
        key = later
    return first, verdicts[key].outcome


def _is_key(key: Key) -> bool:
    latents = [latent for latent, _ in members(key.latent)]
    signs = {sign for _, sign in members(key.latent)}
    whole = [key.prompt, key.sample, key.attempt, *latents]
    number = isinstance(key.strength, int | float) and not isinstance(key.strength, bool)
    return number and signs <= {1, -1} and all(type(n) is int and n >= 0 for n in whole)


def _rows(path: Path, kinds: dict[str, type]) -> Iterator[tuple[Key, Row]]:
    def parse(row: Row) -> tuple[Key, Row]:
        if not {*Key._fields, *kinds} <= row.keys() or not all(
            isinstance(row[name], kind) for name, kind in kinds.items()
        ):
            raise InputError("is no record of a sweep; choose another run directory")
        try:
            read = {name: row[name] for name in Key._fields}
            key = Key(**{**read, "latent": read_latents(read["latent"])})
            whole = _is_key(key)
        except (TypeError, ValueError):
            whole = False
        if not whole:
            raise InputError("is damaged: it names no condition; choose another run directory")
        return key, row

    if path.exists():
        yield from parse_lines(path, parse, ended=True)
