"""``deltalens merge``: put together what the jobs of an array have done."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from deltalens.cli.arguments import add_command
from deltalens.cli.studies.method import add_target


def configure(commands: Any) -> None:
    """Add the command to the parser."""
    parser = add_command(
        commands,
        "merge",
        "put together what the jobs of an array have done with --shard",
        "deltalens merge runs/first",
    )
    parser.add_argument("out", type=Path, help="what the jobs' --out, or their run, was")
    add_target(parser, None)
    parser.set_defaults(run=run, several_processes=True)


def run(args: argparse.Namespace) -> None:
    """Run the jobs' own command without --shard: it finds what they did and does what is left."""
    from deltalens.cli.processes import forget_command, join, noted_command
    from deltalens.cli.studies.target import check_named

    arguments, directory = noted_command(args.out)
    out = args.out.resolve()
    os.chdir(directory)
    whole = args.parser.parse_args(arguments)
    check_named(args.target, getattr(whole, "target", None), args.out)
    join(whole, args.ranks)
    whole.run(whole)
    if args.ranks.first:
        forget_command(out)
