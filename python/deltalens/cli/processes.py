"""A command's part where several processes, or the jobs of an array, are at it."""

from __future__ import annotations

import argparse
from pathlib import Path

from deltalens.cli.config.document import Config, read_config
from deltalens.cli.config.keep import as_config
from deltalens.errors import InputError
from deltalens.ranks.ranks import ALONE, Ranks
from deltalens.ranks.shard import Shard
from deltalens.storage.atomic import write_text


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
        write_text(_note_path(out), as_config(args).text())


def noted_command(out: Path) -> Config:
    """What :func:`note_command` kept.

    Raises :class:`InputError` where it kept nothing.
    """
    if not _note_path(out).exists():
        raise InputError(f"no part of a job array was written to {out}; name what --out named")
    return read_config(_note_path(out))


def forget_command(out: Path) -> None:
    """Remove the note once all is put together."""
    _note_path(out).unlink(missing_ok=True)


def _note_path(out: Path) -> Path:
    return out.with_name(f".{out.name}.shards.yaml")
