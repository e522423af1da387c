"""Hashes of what a command reads, so that the same command later reads the same."""

from __future__ import annotations

import argparse
import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from deltalens.cli.config.names import options_of, subcommand
from deltalens.cli.config.places import OUTPUTS, paths_in
from deltalens.errors import InputError

WHOLE_UP_TO = 1 << 28
"""Bytes of a file that are hashed in full; larger ones at 128 places."""


def hash_inputs(
    parser: argparse.ArgumentParser, args: argparse.Namespace, directory: Path
) -> dict[str, str]:
    """A hash for every file and directory that ``args`` names as something to read, by its path as
    it was given in ``directory``."""
    options = options_of(subcommand(parser, args.command)).values()
    values = [
        (action, value)
        for action in options
        if action.dest not in OUTPUTS and (value := getattr(args, action.dest, None)) is not None
    ]
    return {
        path: _hash(directory / path, deep=action.dest == "sae")
        for action, value in values
        for path in paths_in(action, value, directory)
    }


def check_inputs(name: str, recorded: Mapping[str, str], found: Mapping[str, str]) -> None:
    """Raise :class:`InputError` for the first input that is not as it was when it was read."""
    for path, here in found.items():
        if recorded.get(path, here) != here:
            raise InputError(
                f"{path} has changed since {name} was written; put back what it was, or give "
                "--changed to take it as it is"
            )


def _hash(path: Path, deep: bool) -> str:
    from deltalens.sae.fingerprint import fingerprint

    if path.is_file():
        return fingerprint(path, WHOLE_UP_TO)
    digest = hashlib.sha256()
    for file in sorted(_read_of(path, deep)):
        digest.update(f"{file.relative_to(path)} {fingerprint(file, WHOLE_UP_TO)}\n".encode())
    return f"sha256-files:{digest.hexdigest()}"


def _read_of(directory: Path, deep: bool) -> Iterator[Path]:
    """What is read of a directory, with ``deep`` of those below it: of a run its pairs, which
    nothing adds to."""
    pairs = directory / "pairs.jsonl"
    if pairs.exists() and (directory / "metadata.json").exists():
        yield pairs
        return
    for place, below, files in os.walk(directory):
        below[:] = [name for name in below if deep and not name.startswith(".")]
        for name in files:
            if not name.startswith((".", "config-")) and name != "config.yaml":
                yield Path(place, name)
