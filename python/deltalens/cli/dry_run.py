"""A command from its arguments to its end; --dry-run: what it would cost, and stop."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any


def run_command(args: argparse.Namespace) -> None:
    """Run the command of ``args``; of one that has --dry-run say beforehand what it costs, and
    afterwards keep its configuration beside what it made."""
    from deltalens.cli.config.keep import keep_config, note_inputs
    from deltalens.cli.output import log_lines
    from deltalens.cost.dry_run import dry_run

    if not hasattr(args, "dry_run"):
        args.run(args)
        return
    if not args.dry_run:
        note_inputs(args)
        with log_lines("deltalens", shown=not args.quiet):
            args.run(args)
        keep_config(args)
        return
    with dry_run() as found:
        args.run(args)
    _show(args, found)


def _show(args: argparse.Namespace, found: Any) -> None:
    from deltalens.cli.output import print_json, print_line

    if args.json:
        print_json(
            {
                "dry_run": True,
                "least": asdict(found.least),
                "most": asdict(found.most),
                "money": _money(args, found),
                "seconds": found.seconds,
                "tokens_per_second": found.rate,
            }
        )
        return
    for sentence in found.sentences:
        print_line(sentence)
    print_line(f"Time: {found.words()}. Nothing was written.")


def _money(args: argparse.Namespace, found: Any) -> float | None:
    from deltalens.cli.judging import prices_of

    prices = prices_of(args) if hasattr(args, "price_in") else None
    return None if prices is None else found.most.money(prices)
