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
        configurable=False,
    )
    parser.add_argument("out", type=Path, help="what the jobs' --out, or their run, was")
    add_target(parser, None)
    parser.set_defaults(run=run, several_processes=True)


def run(args: argparse.Namespace) -> None:
    """Run the jobs' own command without --shard: it finds what they did and does what is left."""
    from deltalens.cli.config.parse import parse_config
    from deltalens.cli.dry_run import run_command
    from deltalens.cli.processes import forget_command, join, noted_command
    from deltalens.cli.studies.target import check_named

    config, out = noted_command(args.out), args.out.resolve()
    whole = parse_config(args.parser, str(args.out), config)
    check_named(args.target, getattr(whole, "target", None), args.out)
    os.chdir(config.directory)
    whole.parser = args.parser
    join(whole, args.ranks)
    run_command(whole)
    if args.ranks.first:
        forget_command(out)
