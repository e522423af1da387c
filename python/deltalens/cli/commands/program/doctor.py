"""``deltalens doctor``: what this installation can do, and whether it does it right."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from deltalens.cli.arguments import add_command

WRONG = 1


def configure(commands: Any) -> None:
    """Add the command to the parser."""
    parser = add_command(
        commands,
        "doctor",
        "check every kernel that can run here against fp64, and time it",
        "deltalens doctor --quick",
    )
    parser.add_argument("--quick", action="store_true", help="fewer shapes, no rates")
    parser.add_argument(
        "--device", help="cpu, cuda:1 …; default: the CPU and one GPU of every kind"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Examine, print, and exit with 1 when a kernel is wrong."""
    from deltalens.cli.doctor.facts import devices, facts
    from deltalens.cli.doctor.report import document, show
    from deltalens.cli.output import print_json
    from deltalens.engine.trust.examination import examine

    def say(stage: str) -> None:
        print(f"{stage} …", file=sys.stderr)

    known = facts()
    found = [examine(device, quick=args.quick, say=say) for device in devices(args.device)]
    if args.json:
        print_json(document(known, found))
    else:
        show(known, found)
    if any(each.wrong for each in found):
        raise SystemExit(WRONG)
