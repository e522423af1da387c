"""``deltalens compare``: which latents two studies have in common."""

from __future__ import annotations

import argparse
import math
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
    _show_table(args, found, runs[0])
    _show_summary(found)


def _show_table(args: argparse.Namespace, found: Any, first: Any) -> None:
    from deltalens.cli.output import number, print_table, tokens

    lens = {entry.latent: tokens(entry.promotes) for entry in first.lens}
    columns = ("latent", "in A", "in B", "score A", "score B", "push", "promotes")
    rows = [
        [
            str(item.latent),
            *map(str, item.ranks),
            *map(number, item.scores),
            " ".join("+" if push > 0 else "−" for push in item.pushes),
            lens.get(item.latent, ""),
        ]
        for item in found.shared[: args.show]
    ]
    title = f"Ranks of latents in both A ({found.names[0]}) and B ({found.names[1]})"
    print_table(title, columns, rows, left=columns[-1:])


def _show_summary(found: Any) -> None:
    from deltalens.cli.output import print_line

    a, b = found.k
    print_line(
        f"{len(found.shared)} of the top {a} of A and the top {b} of B are shared; "
        f"{found.expected:.2g} expected by chance (p = {found.probability:.2g})"
    )
    print_line(_top_line(found))
    listed, every = _shown(found.correlation), _shown(found.correlation_all)
    print_line(f"rank correlation: {listed} over the shared latents, {every} over all latents")
    for name, (first, second) in found.differences.items():
        print_line(f"note: {name} differs ({first} in A, {second} in B)")


def _top_line(found: Any) -> str:
    if found.same_top:
        return f"latent {found.top[0]} comes first in both"
    places = ["not in the list" if rank is None else f"number {rank}" for rank in found.top_ranks]
    return (
        f"A's first, latent {found.top[0]}, is {places[0]} in B; "
        f"B's first, latent {found.top[1]}, is {places[1]} in A"
    )


def _shown(value: float) -> str:
    return "unknown" if math.isnan(value) else f"{value:+.2f}"
