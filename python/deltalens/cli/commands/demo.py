"""``deltalens demo``: the whole method on the models that ship with the package."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from deltalens.cli.arguments import add_command


def configure(commands: Any) -> None:
    """Add the command to the parser."""
    parser = add_command(
        commands,
        "demo",
        "run both published case studies on small models in the package, here and now",
        "deltalens demo --out demo-run",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("demo-run"),
        help="directory of both studies; default: demo-run",
    )
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Run the demo and print what was measured."""
    from deltalens.cli.demo.report import show, summary
    from deltalens.cli.demo.run import run_demo
    from deltalens.cli.output import print_json

    found = run_demo(args.out, seed=args.seed)
    if args.json:
        print_json(summary(found))
    else:
        show(found)
