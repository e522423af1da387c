"""``deltalens rerun``: make a run again, by the commands that made it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from deltalens.cli.arguments import add_command


def configure(commands: Any) -> None:
    """Add the command to the parser."""
    parser = add_command(
        commands,
        "rerun",
        "make a run again, by all commands that made it and in their order, from the "
        "configurations that they left in it",
        "deltalens rerun runs/first --out runs/again\n"
        "  deltalens rerun runs/first --set k=50 steer.samples=3",
        configurable=False,
    )
    parser.add_argument(
        "source",
        type=Path,
        metavar="RUN",
        help="directory, pairs or baseline that was made; it stays as it is",
    )
    parser.add_argument(
        "--out",
        type=Path,
        help="where it is made again; default: beside it, RUN-rerun; what is there is gone on with",
    )
    parser.add_argument(
        "--set",
        nargs="+",
        default=[],
        metavar="NAME=VALUE",
        help="other options, by the names that config.yaml has: of every command that has them, or "
        "of one, as in steer.samples=3",
    )
    parser.add_argument(
        "--changed", action="store_true", help="go on where what was read has changed since"
    )
    parser.add_argument(
        "--trusted",
        action="store_true",
        help="run the Python files, and ask the endpoints, that the configurations name",
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    parser.set_defaults(run=run, several_processes=True)


def run(args: argparse.Namespace) -> None:
    """Check all commands, then run one after the other."""
    from deltalens.cli.config.replay import Replay
    from deltalens.cli.config.steps import Change, changed, steps_of
    from deltalens.cli.output import print_line

    source = args.source.resolve()
    out = source.with_name(f"{source.stem}-rerun{source.suffix}")
    out = out if args.out is None else args.out.resolve()
    _check_places(source, out)
    steps = changed(args.parser, steps_of(source), list(map(Change.parse, args.set)))
    other = args.changed or bool(args.set)
    replay = Replay(args.parser, source, out, args.trusted, args.changed)
    for step in steps:
        replay.prepare(step)
    for step in steps:
        print_line(f"{step.words()}: {step.command}")
        _run(replay.prepare(step), args)
        if not other:
            args.ranks.from_first(lambda step=step: replay.check_same(step))
    print_line(f"{out} is {source} again")


def _check_places(source: Path, out: Path) -> None:
    from deltalens.errors import InputError

    if not source.exists():
        raise InputError(f"there is no {source}; name a run")
    if out == source or source in out.parents:
        raise InputError(f"{out} is in {source} itself, which stays as it is; choose another --out")


def _run(step: argparse.Namespace, args: argparse.Namespace) -> None:
    """A step in all processes, or in the first where it is not for several."""
    from deltalens.cli.dry_run import run_command
    from deltalens.cli.processes import join
    from deltalens.ranks.ranks import ALONE

    step.quiet = step.quiet or args.quiet

    def run_in(ranks: Any) -> None:
        join(step, ranks)
        run_command(step)

    if getattr(step, "several_processes", False):
        run_in(args.ranks)
    else:
        args.ranks.from_first(lambda: run_in(ALONE))
