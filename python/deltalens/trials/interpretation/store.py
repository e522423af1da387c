"""Names of latents on disk: appended to a run as they come."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

from deltalens.errors import InputError
from deltalens.storage.jsonl import Row, parse_lines
from deltalens.storage.line_log import append_rows

INTERPRETATIONS_FILE = "interpretations.jsonl"

Kind = Literal["examples", "steering"]
KINDS: tuple[Kind, ...] = get_args(Kind)
_TEXTS = ("name", "explanation", "model", "version", "raw")


@dataclass(frozen=True)
class Interpretation:
    """What a language model takes a latent to be.

    kind: what it was shown, the examples that activate the latent most or the completions of
    steered models. name is empty when ``raw``, its reply, could not be read. version: a hash of
    everything that it was asked.
    """

    latent: int
    kind: Kind
    name: str
    explanation: str
    model: str
    version: str
    raw: str = ""


def read_interpretations(run: str | Path) -> dict[int, list[Interpretation]]:
    """By latent, those with a name: the latest of each model and kind; none without a file."""
    latest = {(item.latent, item.model, item.kind): item for item in read_all(run)}
    found: dict[int, list[Interpretation]] = {}
    for item in sorted(latest.values(), key=lambda item: (item.latent, item.model, item.kind)):
        if item.name:
            found.setdefault(item.latent, []).append(item)
    return found


def read_all(run: str | Path) -> Iterator[Interpretation]:
    """Every line but one that was cut while it was written."""
    path = Path(run) / INTERPRETATIONS_FILE
    if path.exists():
        yield from parse_lines(path, _parse, ended=True)


def append(run: str | Path, item: Interpretation) -> None:
    """Add a line; it is on disk when this returns."""
    append_rows(Path(run) / INTERPRETATIONS_FILE, [asdict(item)])


def _parse(row: Row) -> Interpretation:
    if not isinstance(row.get("latent"), int) or row.get("kind") not in KINDS:
        raise InputError("no interpretation; delete the file and interpret again")
    if not all(isinstance(row.get(name), str) for name in _TEXTS):
        raise InputError(f"{', '.join(_TEXTS)} must be text; delete the file and interpret again")
    return Interpretation(row["latent"], row["kind"], *(row[name] for name in _TEXTS))
