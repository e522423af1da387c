"""The configurations that commands leave beside what they made."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from deltalens.cli.config.document import Config, read_config
from deltalens.cli.config.inputs import hash_inputs
from deltalens.cli.config.names import HERE, SHOWN, given_values, subcommand
from deltalens.errors import InputError

FIRST = "config.yaml"
LATER = re.compile(r"config-(\d+)-[a-z-]+\.yaml")

KEPT = (
    "attribute",
    "survey",
    "pairs",
    "baseline",
    "steer",
    "ablate",
    "delta-activation",
    "detect",
    "tokens",
    "examples",
    "interpret",
)
"""Commands that compute with a model and write what they find."""
_ALSO_SHOWN = {"tokens": {"pair", "latent"}}


def note_inputs(args: argparse.Namespace) -> None:
    """Hash what a command is about to read."""
    if args.command in KEPT and not hasattr(args, "inputs"):
        directory = Path.cwd()
        args.inputs = args.ranks.from_first(lambda: hash_inputs(args.parser, args, directory))


def keep_config(args: argparse.Namespace) -> None:
    """Write the configuration of a command that has ended, unless it is there; what was filled in
    meanwhile belongs to it."""
    from deltalens.ranks.alone import alone
    from deltalens.storage.lock import lock_beside, lock_in

    if args.command not in KEPT or getattr(args, "only_shown", False):
        return
    out = place_of(args)
    config = _config(args)
    with alone(lock_in(out) if out.is_dir() else lock_beside(out), args.ranks):
        if args.ranks.first and not _is_there(args, out, config):
            _write(args, out, config)


def place_of(args: argparse.Namespace) -> Path:
    """The directory or file that a command makes or adds to."""
    out: Path | None = getattr(args, "out", None)
    return args.run_dir if out is None else out


def as_config(args: argparse.Namespace) -> Config:
    """The whole of a command, with how it shows its results."""
    values = given_values(subcommand(args.parser, args.command), args, HERE)
    return Config(args.command, Path.cwd(), values)


def config_files(place: Path) -> list[Path]:
    """The configurations of what is at ``place``, in the order in which they were written."""
    if not place.is_dir():
        beside = place.with_name(f"{place.stem}.{FIRST}")
        return [beside] if beside.exists() else []
    later = [path for path in place.glob("config-*.yaml") if LATER.fullmatch(path.name)]
    first = [place / FIRST] if (place / FIRST).exists() else []
    return first + sorted(later, key=_number)


def _config(args: argparse.Namespace) -> Config:
    left_out = HERE | SHOWN | _ALSO_SHOWN.get(args.command, set())
    values = given_values(subcommand(args.parser, args.command), args, left_out)
    return Config(args.command, Path.cwd(), values, args.inputs)


def _is_there(args: argparse.Namespace, out: Path, config: Config) -> bool:
    """Whether the last of this command's configurations is this one."""
    if getattr(args, "kept_as", None) is not None:
        path = out / args.kept_as
        return path.exists() and path.read_text(encoding="utf-8") == config.text()
    for path in reversed(config_files(out)):
        try:
            command = read_config(path).command
        except InputError:
            continue  # of a directory that is gone; it stays as it is
        if command == config.command:
            return path.read_text(encoding="utf-8") == config.text()
    return False


def _write(args: argparse.Namespace, out: Path, config: Config) -> None:
    from deltalens.storage.atomic import write_text

    if not out.is_dir():
        write_text(out.with_name(f"{out.stem}.{FIRST}"), config.text())
        return
    write_text(out / (getattr(args, "kept_as", None) or _next_name(args, out)), config.text())


def _next_name(args: argparse.Namespace, out: Path) -> str:
    """``config.yaml`` of the command that made a directory, then ``config-2-steer.yaml`` …"""
    there = config_files(out)
    makes = args.command in ("attribute", "survey") or not (out / "metadata.json").exists()
    if makes and out / FIRST not in there:
        return FIRST
    return f"config-{max(map(_number, there), default=1) + 1}-{args.command}.yaml"


def _number(path: Path) -> int:
    named = LATER.fullmatch(path.name)
    return int(named[1]) if named else 1
