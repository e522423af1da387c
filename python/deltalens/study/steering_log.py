"""Steered completions and their verdicts on disk: appended as they come, never rewritten."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from deltalens.errors import InputError
from deltalens.judge import Verdict
from deltalens.study.sweep_result import STEERING_DIRECTORY, Direction

T = TypeVar("T")

_BATCH, _SECONDS = 512, 1.0  # lines written at once, and how long the first of them waits


class Key(NamedTuple):
    """Which completion: of which condition, prompt and sample, and which attempt at it.

    latent None and strength 0: the unsteered model. strength is signed.
    """

    latent: int | None
    strength: float
    prompt: int
    sample: int
    attempt: int


@dataclass(frozen=True)
class Completion:
    """One completion and the seed of its stream of random numbers."""

    key: Key
    seed: int
    text: str


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


class Batched(Generic[T]):
    """Hands items on to ``write`` in batches: at the latest a second after the first came, or
    when the block ends, however it ends."""

    def __init__(self, write: Callable[[list[T]], None]) -> None:
        self._write = write
        self._waiting: list[T] = []
        self._since = 0.0

    def add(self, item: T) -> None:
        """Take one more item."""
        if not self._waiting:
            self._since = time.monotonic()
        self._waiting.append(item)
        if len(self._waiting) >= _BATCH or time.monotonic() - self._since > _SECONDS:
            self._flush()

    def _flush(self) -> None:
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            self._write(waiting)

    def __enter__(self) -> Batched[T]:
        return self

    def __exit__(self, *_: object) -> None:
        self._flush()


def append_completions(path: Path, completions: Iterable[Completion]) -> None:
    """Add lines; they are on disk when this returns."""
    _append(
        path, ({**item.key._asdict(), "seed": item.seed, "text": item.text} for item in completions)
    )


def append_verdicts(path: Path, verdicts: Iterable[tuple[Key, Verdict]]) -> None:
    """Add lines; they are on disk when this returns."""
    _append(path, ({**key._asdict(), **asdict(verdict)} for key, verdict in verdicts))


def read_completions(path: Path) -> dict[Key, Completion]:
    """Every completion there is; a line cut while it was written is removed from the file."""
    return {
        key: Completion(key, row["seed"], row["text"])
        for key, row in _rows(path, {"seed": int, "text": str})
    }


def read_verdicts(path: Path) -> dict[Key, Verdict]:
    """Every verdict there is; a line cut while it was written is removed from the file."""
    fields = ("label", "outcome", "score", "raw")
    kinds: dict[str, Any] = {"label": str, "outcome": str}
    return {key: Verdict(*(row[name] for name in fields)) for key, row in _rows(path, kinds)}


def _append(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    with path.open("a", encoding="utf-8", newline="\n") as stream:
        stream.write("".join(lines))
        stream.flush()
        os.fsync(stream.fileno())


def _rows(path: Path, kinds: dict[str, type]) -> Iterator[tuple[Key, dict[str, Any]]]:
    for number, line in enumerate(_whole_lines(path), start=1):
        try:
            row = json.loads(line)
            key = Key(*(row[name] for name in Key._fields))
            if not all(isinstance(row[name], kind) for name, kind in kinds.items()):
                raise TypeError("a field has the wrong type")
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(f"{path}, line {number} is no record of a sweep: {error}") from error
        yield key, row


def _whole_lines(path: Path) -> list[str]:
    if not path.exists():
        return []
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        os.truncate(path, len(whole))
    return whole.decode("utf-8").split("\n")[:-1]
