"""``deltalens detect``: how well a run's latents tell the behaviour apart on texts held out."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from deltalens.cli.arguments import (
    add_chat_template,
    add_command,
    add_dry_run,
    add_model,
    add_output,
    add_pair_fields,
    add_sae,
)
from deltalens.cli.studies.grading import add_graded, graded_fields, grading


def configure(commands: Any) -> None:
    """Add the command to the parser."""
    parser = add_command(
        commands,
        "detect",
        "measure how well a run's latents tell the behaviour apart on completions, and prompts, "
        "that the run has not seen: AUC with intervals",
        "deltalens detect runs/first --held-out more-pairs.jsonl\n"
        "  deltalens detect runs/first --graded judged.csv",
    )
    parser.add_argument("run_dir", type=Path, metavar="RUN", help="run directory of `attribute`")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument(
        "--held-out",
        type=Path,
        metavar="PAIRS",
        help="pairs of other prompts (JSONL or run directory), whose completions are told apart",
    )
    which.add_argument(
        "--graded",
        type=Path,
        metavar="FILE",
        help="CSV or JSONL of graded answers to other prompts, one answer a row: told apart by "
        "their own tokens and by their prompts'",
    )
    parser.add_argument(
        "--latents", type=int, nargs="+", default=[], metavar="LATENT", help="besides the run's own"
    )
    parser.add_argument("--show", type=int, default=20, help="latents shown; default: 20")
    add_pair_fields(parser)
    group = add_graded(parser)
    group.add_argument("--aligned-below", type=float, help="shows the behaviour; default: 30")
    group.add_argument("--coherent-above", type=float, help="makes sense; default: 50")
    add_model(parser, required=False)
    add_chat_template(parser)
    add_sae(parser, required=False)
    add_output(parser)
    add_dry_run(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Read, score, write ``detection.csv`` and ``detection.json`` into the run, print."""
    from deltalens.cli.loading import (
        batch_options,
        fill_from_run,
        load_model,
        load_sae_of_run,
        warn_of_other_model,
    )
    from deltalens.study import Attribution
    from deltalens.study.detection import detect

    attribution = Attribution.load(args.run_dir)
    fill_from_run(args, attribution.metadata)
    held_out = _held_out(args)
    sae = load_sae_of_run(args, attribution.metadata)
    model, tokenizer = load_model(args)
    warn_of_other_model(model, args, attribution.metadata)
    found = detect(
        model,
        tokenizer,
        attribution,
        sae,
        held_out,
        latents=args.latents,
        chat_template_kwargs=args.chat_template_kwargs,
        progress=not args.quiet,
        **batch_options(args),
    )
    found.metadata["file"] = str(args.held_out or args.graded)
    found.save(args.run_dir)
    _show(args, found)


def _held_out(args: argparse.Namespace) -> Any:
    from deltalens.cli.loading import load_pairs
    from deltalens.pairs.graded.answers import read_answers

    if args.graded is None:
        return load_pairs(args, args.held_out)
    answers, _ = read_answers(args.graded, fields=graded_fields(args), grading=grading(args))
    return answers


def _show(args: argparse.Namespace, found: Any) -> None:
    from deltalens.cli.output import print_json, print_line
    from deltalens.cli.studies.detection_table import print_detection

    if args.json:
        rows = list(map(asdict, found.rows))
        print_json({"run": str(args.run_dir), **found.metadata, "detection": rows})
        return
    print_detection(found, args.show)
    print_line(f"written: {args.run_dir / 'detection.csv'}")
