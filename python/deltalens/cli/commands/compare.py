"""``deltalens compare``: which latents two studies have in common."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from deltalens.cli.arguments import add_command, positive_int


def configure(commands: Any) -> None:
    """Add the command to the parser."""
    parser = add_command(
        commands,
        "compare",
        "compare two studies with one SAE: the latents that rank in both, and how alike they rank",
        "deltalens compare runs/advice runs/validation --top 50 --out comparison.json",
    )
    parser.add_argument("first", type=Path, metavar="RUN_A", help="run directory of `attribute`")
    parser.add_argument("second", type=Path, metavar="RUN_B", help="another one")
    parser.add_argument(
        "-k", "--top", type=positive_int, help="latents of each; default: all that were kept"
    )
    parser.add_argument("--out", type=Path, help="write the comparison to this JSON file, too")
    parser.add_argument("--show", type=int, default=20, help="rows shown; default: 20")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Compare, write the file if asked for, show."""
    from deltalens.cli.comparison_table import print_comparison
    from deltalens.cli.output import print_json
    from deltalens.study import Attribution, compare

    runs = [Attribution.load(path) for path in (args.first, args.second)]
    names = (str(args.first), str(args.second))
    found = compare(*runs, top=args.top, names=names)
    if args.out is not None:
        found.save(args.out)
    if args.json:
        print_json({**found.as_dict(), "same_top": found.same_top})
        return
    print_comparison(found, runs[0].lens, args.show)
