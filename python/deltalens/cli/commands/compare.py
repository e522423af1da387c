"""``deltalens compare``: which latents two studies have in common, or how latents change over the
checkpoints of a training run."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from deltalens.cli.arguments import add_command, add_sae, positive_int
from deltalens.errors import InputError


def configure(commands: Any) -> None:
    """Add the command to the parser."""
    parser = add_command(
        commands,
        "compare",
        "compare two studies with one SAE: the latents that rank in both, and how alike they rank; "
        "or, with --checkpoints, studies of several models of one training run: how each latent's "
        "score, push, activation and steering effect change",
        "deltalens compare runs/advice runs/validation --top 50 --out comparison.json\n"
        "  deltalens compare --checkpoints runs/step100 runs/step200 runs/step300 --out course",
    )
    parser.add_argument(
        "runs",
        type=Path,
        nargs="+",
        metavar="RUN",
        help="run directories of `attribute`: two, or with --checkpoints those of a training run "
        "in its order",
    )
    parser.add_argument(
        "-k",
        "--top",
        type=positive_int,
        help="latents of each; default: all that were kept, with --checkpoints 10",
    )
    parser.add_argument(
        "--out",
        type=Path,
        help="write the comparison to this JSON file, too; with --checkpoints a directory for "
        "table (CSV), figure (SVG, PNG) and JSON",
    )
    parser.add_argument("--show", type=int, default=20, help="rows shown; default: 20")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    _add_checkpoints(parser)
    parser.set_defaults(run=run)


def _add_checkpoints(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("checkpoints of a training run")
    group.add_argument(
        "--checkpoints",
        action="store_true",
        help="RUNs were made with models of one training run, one SAE and one site",
    )
    group.add_argument(
        "--names",
        nargs="+",
        metavar="NAME",
        help="of the checkpoints, after RUNs; default: their directories'; a number in which they "
        "differ is the step",
    )
    group.add_argument(
        "--latents",
        type=int,
        nargs="+",
        metavar="LATENT",
        help="latents to follow; default: the first of every run (--top)",
    )
    add_sae(parser, required=False)


def run(args: argparse.Namespace) -> None:
    """Compare, write what is asked for, show."""
    if args.checkpoints:
        _compare_checkpoints(args)
        return
    if len(args.runs) != 2:
        raise InputError(
            f"two runs are compared, got {len(args.runs)}; runs of one training run are followed "
            "with --checkpoints"
        )
    if args.names or args.latents or args.sae:
        raise InputError("--names, --latents and --sae go with --checkpoints")
    _compare_two(args)


def _compare_two(args: argparse.Namespace) -> None:
    from deltalens.cli.comparison.two import print_comparison
    from deltalens.cli.output import print_json
    from deltalens.study import Attribution, compare

    first, second = args.runs
    runs = [Attribution.load(path) for path in args.runs]
    found = compare(*runs, top=args.top, names=(str(first), str(second)))
    if args.out is not None:
        found.save(args.out)
    if args.json:
        print_json({**found.as_dict(), "same_top": found.same_top})
        return
    print_comparison(found, runs[0].lens, args.show)


def _compare_checkpoints(args: argparse.Namespace) -> None:
    from deltalens.checkpoints import compare_checkpoints
    from deltalens.checkpoints.compare import TOP
    from deltalens.cli.comparison.checkpoints import print_checkpoints
    from deltalens.cli.loading import load_sae
    from deltalens.cli.output import print_json, print_line
    from deltalens.report import write_checkpoints

    if args.latents and args.top:
        raise InputError("give --latents or --top, not both")
    found = compare_checkpoints(
        args.runs,
        names=args.names,
        latents=args.latents,
        top=args.top or TOP,
        sae=None if args.sae is None else load_sae(args),
    )
    written = [] if args.out is None else write_checkpoints(found, args.out)
    if args.json:
        print_json(found.as_dict())
        return
    print_checkpoints(found, args.show)
    if written:
        print_line(f"written: {', '.join(map(str, written))}")
