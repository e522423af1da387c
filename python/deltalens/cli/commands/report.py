"""``deltalens report``: a run as figures and one HTML page."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from deltalens.cli.arguments import add_command, add_neuronpedia
from deltalens.errors import InputError


def configure(commands: Any) -> None:
    """Add the command to the parser."""
    parser = add_command(
        commands,
        "report",
        "write a run's figures and its report, one HTML page that needs nothing else; of a survey "
        "its page and every report",
        "deltalens report runs/advice --beside runs/validation",
    )
    parser.add_argument(
        "run_dir",
        type=Path,
        metavar="RUN",
        help="run directory of `attribute`, or that of `survey`",
    )
    parser.add_argument(
        "--beside",
        type=Path,
        nargs="+",
        default=[],
        metavar="RUN2",
        help="runs of other behaviours with the same SAE, to compare rankings with",
    )
    parser.add_argument("--out", type=Path, help="the page; default: report.html in the run")
    add_neuronpedia(parser)
    parser.add_argument("--json", action="store_true", help="print JSON instead of the path")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Write both, and print where the page is."""
    from deltalens.cli.output import print_json, print_line
    from deltalens.report import write_report, write_survey_report
    from deltalens.study.survey.directory import is_survey

    if is_survey(args.run_dir):
        if args.beside or args.out is not None or args.neuronpedia is not None:
            raise InputError(
                f"{args.run_dir} is a survey, whose page takes no --beside, --out and --neuronpedia"
            )
        written = write_survey_report(args.run_dir)
    else:
        written = write_report(
            args.run_dir, beside=args.beside, out=args.out, neuronpedia=args.neuronpedia
        )
    figures = sorted(map(str, (args.run_dir / "figures").glob("*.*")))
    if args.json:
        print_json({"run": str(args.run_dir), "report": str(written), "figures": figures})
    else:
        print_line(str(written))
