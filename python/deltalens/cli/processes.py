"""A command's part where several processes, or the jobs of an array, are at it."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

from deltalens.errors import InputError
from deltalens.ranks.ranks import ALONE, Ranks
from deltalens.ranks.shard import Shard
from deltalens.storage.atomic import write_text
from deltalens.storage.json_text import parse_json


def add_shard(parser: argparse.ArgumentParser) -> None:
    """--shard, and that the command runs in several processes."""
    parser.add_argument(
        "--shard",
        metavar="I/N",
        help="do only part I of N, from 0 on, as one of several jobs that share the output; "
        "`deltalens merge OUT` then puts all parts together",
    )
    parser.set_defaults(several_processes=True)


def join(args: argparse.Namespace, ranks: Ranks) -> None:
    """Set ``args.ranks``: the processes of this one, or its part of a job array.

    Raises :class:`InputError` for a command that runs in one process alone.
    """
    shard = getattr(args, "shard", None)
    if ranks != ALONE and not getattr(args, "several_processes", False):
        raise InputError(f"{args.command} runs in one process; start it without torchrun")
    if ranks != ALONE and shard is not None:
        raise InputError("--shard is for processes that do not meet; leave it out under torchrun")
    if ranks != ALONE and getattr(args, "engine", None) == "vllm":
        raise InputError(
            "--engine vllm spreads over GPUs by itself; start it without torchrun, or as jobs of "
            "an array with --shard"
        )
    args.ranks = ranks if shard is None else Shard.parse(shard)
    if args.ranks != ALONE and getattr(args, "dry_run", False):
        raise InputError("--dry-run tells of the whole work; leave out --shard and torchrun")
    if not ranks.first and hasattr(args, "quiet"):
        args.quiet = True


def note_command(out: Path, args: argparse.Namespace) -> None:
    """Keep beside ``out`` what ``merge`` is to run once all parts of a job array are there."""
    if isinstance(args.ranks, Shard):
        command = {"arguments": args.arguments, "directory": os.getcwd()}
        write_text(_note_path(out), json.dumps(command, ensure_ascii=False) + "\n")


def noted_command(out: Path) -> tuple[list[str], Path]:
    """What :func:`note_command` kept: the arguments without --shard, and where they were given.

    Raises :class:`InputError` where it kept nothing.
    """
    try:
        found: dict[str, Any] = parse_json(_note_path(out).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"no part of a job array was written to {out}; name what --out named"
        ) from error
    return without_shard(found["arguments"]), Path(found["directory"])


def forget_command(out: Path) -> None:
    """Remove the note once all is put together."""
    _note_path(out).unlink(missing_ok=True)


def without_shard(arguments: list[str]) -> list[str]:
    """The same command for all parts."""
    kept, skip = [], False
    for argument in arguments:
        if skip or argument.startswith("--shard="):
            skip = False
        elif argument == "--shard":
            skip = True
        else:
            kept.append(argument)
    return kept


def _note_path(out: Path) -> Path:
    return out.with_name(f".{out.name}.shards.json")
