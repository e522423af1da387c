"""The commands that made a run, one after the other, and what makes another run by them."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from deltalens.cli.config.document import Config, check_known, read_config
from deltalens.cli.config.keep import FIRST, KEPT, config_files
from deltalens.cli.config.names import options_of, rivals, subcommand
from deltalens.cli.config.places import OUTPUTS, anchored
from deltalens.errors import InputError, quoted


@dataclass(frozen=True)
class Step:
    """One command: where below the run it worked, ``.`` for the run itself, and what it was."""

    below: Path
    name: str
    config: Config

    @property
    def command(self) -> str:
        return str(self.config.command)

    def words(self) -> str:
        """How it is called in messages."""
        return str(self.below / self.name)


@dataclass(frozen=True)
class Change:
    """An option that is to be another: of ``command``, or of every command that has it."""

    command: str | None
    option: str
    value: Any

    @classmethod
    def parse(cls, text: str) -> Change:
        """Of NAME=VALUE or COMMAND.NAME=VALUE, the value as YAML has it."""
        from deltalens.storage.yaml_text import compose_yaml, yaml_value

        name, equals, value = text.partition("=")
        command, dot, option = name.rpartition(".")
        if not equals or not option:
            raise InputError(f"{quoted(text)} is not NAME=VALUE or COMMAND.NAME=VALUE; mend --set")
        return cls(command if dot else None, option, yaml_value(compose_yaml(value.encode())))


def steps_of(place: Path) -> list[Step]:
    """What made the run, or file, at ``place`` and what lies below it, in order.

    Raises :class:`InputError` where that is not known, or is no command that makes runs.
    """
    first = place / FIRST if place.is_dir() else place.with_name(f"{place.stem}.{FIRST}")
    if not first.exists():
        raise InputError(
            f"there is no {first}: a run made from Python has none, and one of several sites or of "
            "a survey is made again with the directory above it"
        )
    steps = [
        Step(directory.relative_to(place), path.name, read_config(path))
        for directory in _directories(place)
        for path in config_files(directory)
    ]
    for step in steps:
        if step.command not in KEPT:
            raise InputError(
                f"{step.words()} is of {quoted(step.config.command)}, which makes no run; mend it"
            )
    return steps


def _directories(place: Path) -> Iterator[Path]:
    yield place
    for directory, below, _ in os.walk(place):
        below[:] = sorted(name for name in below if not name.startswith("."))
        yield from (Path(directory, name) for name in below)


def changed(
    parser: argparse.ArgumentParser, steps: Sequence[Step], changes: Sequence[Change]
) -> list[Step]:
    """The steps with other options; relative paths among those start in this process's directory.

    Raises :class:`InputError` for a change that none of them takes.
    """
    taken: set[str] = set()
    found = [replace(step, config=_with(parser, step, changes, taken)) for step in steps]
    for change in changes:
        named = [step.command for step in steps if change.command in (None, step.command)]
        if not named:
            raise InputError(f"none of the commands is {quoted(change.command)}; mend --set")
        if change.option not in taken:
            check_known([change.option], options_of(subcommand(parser, named[0])), named[0])
    return found


def _with(
    parser: argparse.ArgumentParser, step: Step, changes: Sequence[Change], taken: set[str]
) -> Config:
    own = subcommand(parser, step.command)
    options, given = options_of(own), dict(step.config.options)
    names = {id(action): name for name, action in options.items()}
    for change in changes:
        action = options.get(change.option)
        if action is None or change.command not in (None, step.command):
            continue
        for rival in rivals(own, action):
            given.pop(names[id(rival)], None)
        given[change.option] = anchored(action, change.value, Path.cwd())
        taken.add(change.option)
    return replace(step.config, options=given)


def moved(parser: argparse.ArgumentParser, step: Step, out: Path) -> Config:
    """The step's configuration with ``out``, absolute, in the place of what it made or added to."""
    options, given = options_of(subcommand(parser, step.command)), dict(step.config.options)
    written = [
        name
        for dest in OUTPUTS
        for name, action in options.items()
        if action.dest == dest and name in given
    ]
    if not written:
        raise InputError(f"{step.words()} does not say what it made (out or run); mend it")
    own = given[written[0]]
    return replace(
        step.config,
        options=given | {name: str(out / step.below) for name in written if given[name] == own},
    )
