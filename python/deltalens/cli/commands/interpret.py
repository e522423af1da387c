"""``deltalens interpret``: names for a run's latents, from a language model."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from deltalens.cli.arguments import add_command, add_dry_run, add_output, positive_int
from deltalens.cli.judging import add_chat, prices_of


def configure(commands: Any) -> None:
    """Add the command to the parser."""
    parser = add_command(
        commands,
        "interpret",
        "let a language model name a run's latents, from examples and from steered completions",
        "deltalens interpret runs/first --endpoint https://api.openai.com/v1 --judge-model NAME\n"
        "  deltalens interpret runs/first --judge-model Qwen/Qwen3-4B --top 5",
    )
    parser.add_argument("run_dir", type=Path, metavar="RUN", help="run directory of `attribute`")
    parser.add_argument(
        "--top", type=positive_int, default=20, help="latents, best first; default: 20"
    )
    add_chat(parser)
    add_output(parser)
    add_dry_run(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Ask what has not been asked, and show all names."""
    from deltalens.cli.judging import load_chat, usage_of
    from deltalens.cli.output import print_json
    from deltalens.judge import ReplyCache
    from deltalens.study import Attribution
    from deltalens.trials.interpretation.interpret import interpret
    from deltalens.trials.result import STEERING_DIRECTORY

    latents = Attribution.load(args.run_dir).latents.tolist()
    chat, cache = load_chat(args), ReplyCache(args.run_dir / STEERING_DIRECTORY)
    found = interpret(
        args.run_dir,
        chat,
        top=args.top,
        cache=cache,
        prices=prices_of(args),
        progress=not args.quiet,
    )
    rows = [vars(item) for latent in latents for item in found.get(latent, [])]
    usage = usage_of(args, chat)
    if args.json:
        print_json({"run": str(args.run_dir), "interpretations": rows, "usage": usage})
    else:
        _show(args, rows, usage)


def _show(args: argparse.Namespace, rows: list[dict[str, Any]], usage: Any) -> None:
    from deltalens.cli.judging import usage_line
    from deltalens.cli.output import print_line, print_table
    from deltalens.visible import visible

    columns = ("latent", "from", "name", "explanation")
    cells = [
        [str(row["latent"]), *(visible(row[key]) for key in ("kind", "name", "explanation"))]
        for row in rows
    ]
    print_table(f"Names of latents of {args.run_dir}", columns, cells, left=columns[2:])
    print_line(usage_line(usage))
