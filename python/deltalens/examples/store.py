"""Examples on disk: the state of a collection under way, and the finished ``latents.jsonl``."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import torch

from deltalens.errors import InputError
from deltalens.examples.checked import checked_line
from deltalens.examples.contexts import BLOCK, Place
from deltalens.examples.listed import ExampleLines
from deltalens.examples.tiles import Collector
from deltalens.ranks.ranks import Ranks
from deltalens.storage.atomic import (
    complete_file,
    remove_directory,
    write_tensors,
    write_text,
)
from deltalens.storage.json_text import parse_json
from deltalens.storage.jsonl import parse_lines
from deltalens.storage.leftovers import foreign, remove_leftovers
from deltalens.storage.parts import part_path, parts_of
from deltalens.study.attribution import LATENTS_FILE, METADATA_FILE
from deltalens.study.run import SETTINGS_FILE, differing

EXAMPLES_FILE = "examples.json"
_WORK = ".examples"
_STATE = "state.safetensors"
_SAVING_SHARE = 0.05  # of the time may be spent on saving
_MERGED_LATENTS = 4096  # of another process's state that are in memory at once

Settings = Mapping[str, Any]


class Collected(NamedTuple):
    """Of one process: how far it has gone through the corpus, the blocks that it has collected on
    the way, and how many of their tokens were attention sinks."""

    place: Place
    blocks: list[int]
    left_out: int


class ExampleStore:
    """The directory of one collection: refused, under way or complete.

    Everything under way lies in a folder of its own, of several processes a file for each;
    ``examples.json``, written last, marks the collection as complete. The directory may be a
    study's run, whose ``latents.jsonl`` then gets the examples of the same latents.
    """

    def __init__(self, directory: Path, settings: Settings, seconds: float, ranks: Ranks) -> None:
        self._directory = directory
        self._settings = settings
        self._work = directory / _WORK
        self._own = part_path(self._work / _STATE, ranks.part)
        self._seconds = seconds
        self._saved, self._cost = time.monotonic(), 0.0
        self._check()

    @property
    def complete(self) -> bool:
        return (self._directory / EXAMPLES_FILE).exists()

    @property
    def _is_run(self) -> bool:
        return (self._directory / METADATA_FILE).exists()

    def begin(self) -> None:
        """Note what is collected here, before anything else is written."""
        remove_leftovers(self._work)
        write_text(self._work / SETTINGS_FILE, json.dumps(self._settings, indent=2) + "\n")

    def progress(self) -> tuple[Place, frozenset[int]]:
        """Of all processes by now: before which place all is collected, and which blocks are."""
        every = [_read_header(path)[0] for path in self._states()]
        done = frozenset(block for one in every for block in one.blocks)
        until = next(number for number in count() if number not in done) * BLOCK
        places = [one.place for one in every if one.place.contexts <= until]
        return max([Place(), *places], key=lambda place: place.contexts), done

    def restore(self, collector: Collector) -> Collected:
        """What this process had collected when it was cut, put into ``collector``."""
        if not self._own.exists():
            return Collected(Place(), [], 0)
        from safetensors.numpy import load_file

        collector.restore(load_file(self._own))
        return _read_header(self._own)[0]

    def others(self, collector: Collector) -> Iterator[Collected]:
        """What the other processes have collected, added to ``collector``."""
        from safetensors import safe_open

        for path in self._states():
            if path == self._own:
                continue
            collected, settings = _read_header(path)
            self._check_same(settings)
            with safe_open(path, framework="np") as file:
                latents = file.get_slice("active").get_shape()[0]
                names = list(file.keys())
                for start in range(0, latents, _MERGED_LATENTS):
                    rows = slice(start, min(start + _MERGED_LATENTS, latents))
                    part = {name: file.get_slice(name)[rows] for name in names}
                    collector.merge(start, part)
            yield collected

    def save_if_due(self, collected: Collected, collector: Collector) -> None:
        """Keep the state when the last time is long enough ago; at 0 seconds always."""
        start = time.monotonic()
        least = max(self._seconds, self._cost / _SAVING_SHARE) if self._seconds else 0
        if start - self._saved < least:
            return
        self.save(collected, collector)
        self._saved = time.monotonic()
        self._cost = self._saved - start

    def save(self, collected: Collected, collector: Collector) -> None:
        """Keep this process's state."""
        header = {
            "collected": json.dumps(collected._asdict()),
            "settings": json.dumps(self._settings),
        }
        state = collector.state()
        tensors = {name: torch.from_numpy(array) for name, array in state.items()}
        write_tensors(self._own, tensors, header)

    def inconsistent(self) -> InputError:
        """What to raise where the processes have not collected every block once."""
        return InputError(
            f"{self._work} has parts of other divisions of the same texts; delete it to begin anew"
        )

    def run_lines(self) -> dict[int, dict[str, Any]]:
        """What the directory's run says about its latents, examples left out."""
        if not self._is_run:
            return {}
        rows = parse_lines(self._directory / LATENTS_FILE, checked_line)
        return {row["latent"]: _without_examples(row) for row in rows}

    def finish(self, lines: Iterator[Mapping[str, Any]], summary: Mapping[str, Any]) -> None:
        """Write the finished files and drop the state."""
        write_page(
            self._directory / LATENTS_FILE,
            (json.dumps(line, ensure_ascii=False) + "\n" for line in lines),
        )
        text = json.dumps({**self._settings, **summary}, indent=2, ensure_ascii=False)
        write_text(self._directory / EXAMPLES_FILE, text + "\n")
        self.drop_state()

    def drop_state(self) -> None:
        """Remove what is kept of a collection under way."""
        remove_directory(self._work)

    def _check(self) -> None:
        if not self._directory.exists():
            return
        if not self._directory.is_dir():
            raise InputError(f"{self._directory} is a file; choose another directory")
        if self.complete:
            self._check_same(read_summary(self._directory))
            return
        for path in self._states():
            self._check_same(_read_header(path)[1])
        begun = (self._work / SETTINGS_FILE).exists()
        if not (self._is_run or begun or self._states()) and foreign(self._directory, _WORK):
            raise InputError(
                f"{self._directory} holds files but no examples and no run; choose another "
                "directory"
            )

    def _check_same(self, there: Settings) -> None:
        differences = differing(there, self._settings)
        if differences:
            raise InputError(
                f"{self._directory} holds examples made with other settings: {differences}; "
                f"choose another directory or delete its {EXAMPLES_FILE} and {_WORK}"
            )

    def _states(self) -> list[Path]:
        """Of all processes."""
        whole = self._work / _STATE
        return [path for path in (whole, *parts_of(whole)) if path.exists()]


def read_summary(directory: Path) -> dict[str, Any]:
    """Settings and totals of finished examples; :class:`InputError` when there are none."""
    path = directory / EXAMPLES_FILE
    try:
        summary = parse_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"{directory} holds no finished examples: cannot read {EXAMPLES_FILE}; "
            "make them with `deltalens examples`"
        ) from error
    except ValueError as error:
        raise InputError(f"{path} is {error}; collect the examples again") from error
    if (
        not isinstance(summary, dict)
        or not {"options", "fingerprints", "latents"} <= summary.keys()
        or type(summary["latents"]) is not int
    ):
        raise InputError(f"{path} was not written by deltalens; choose another directory")
    return summary


def read_examples(directory: str | Path) -> ExampleLines:
    """The lines of a directory's ``latents.jsonl``, as plain JSON values, read as they are used.
    In a notebook the first ones show themselves; ``to_pandas()`` gives their statistics.

    Raises :class:`InputError` for a directory without finished examples, and at the end of a file
    that has lost some.
    """
    directory = Path(directory)
    summary = read_summary(directory)
    return ExampleLines(partial(_complete_lines, directory, summary), summary["latents"])


def _complete_lines(directory: Path, summary: Settings) -> Iterator[dict[str, Any]]:
    count = 0
    for row in parse_lines(directory / LATENTS_FILE, checked_line):
        count += "examples" in row
        yield row
    if count != summary["latents"]:
        raise InputError(
            f"{directory / LATENTS_FILE} has examples of {count} latents, not of "
            f"{summary['latents']}; collect them again"
        )


def select_examples(directory: Path, latents: Sequence[int]) -> Iterator[dict[str, Any]]:
    """The lines of ``latents`` in their order, or all lines for none.

    Raises :class:`InputError` for a latent that has none.
    """
    lines = read_examples(directory)
    if not latents:
        return lines
    wanted = set(latents)
    found = {line["latent"]: line for line in lines if line["latent"] in wanted}
    for latent in latents:
        if latent not in found:
            raise InputError(f"{directory} has no examples of latent {latent}; collect them first")
    return (found[latent] for latent in latents)


def write_page(path: Path, pieces: Iterable[str]) -> None:
    """A page or other long text, whole or not at all."""
    with (
        complete_file(path) as temporary,
        temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="\n") as stream,
    ):
        stream.writelines(pieces)


def _read_header(path: Path) -> tuple[Collected, Settings]:
    from safetensors import safe_open

    try:
        with safe_open(path, framework="np") as file:
            header = file.metadata()
        found = json.loads(header["collected"])
        collected = Collected(Place(*found.pop("place")), **found)
        return collected, json.loads(header["settings"])
    except Exception as error:  # a damaged file fails in many ways
        raise InputError(f"{path} is damaged: {error}; delete it to begin anew") from error


def _without_examples(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "examples"}
