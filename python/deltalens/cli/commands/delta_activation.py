"""``deltalens delta-activation``: rank latents by how much more active they are."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from deltalens.cli.arguments import (
    add_chat_template,
    add_command,
    add_model,
    add_output,
    add_pairs,
    add_sae,
    add_sinks,
    add_site,
    positive_int,
)
from deltalens.errors import InputError

DEFAULT_K = 100


def configure(commands: Any) -> None:
    """Add the command to the parser."""
    parser = add_command(
        commands,
        "delta-activation",
        "rank SAE latents by mean activation, in one model over another or in positive over "
        "negative completions",
        "deltalens delta-activation --model tuned --against base --texts prompts.jsonl --sae SAE "
        "--out runs/first\n  deltalens delta-activation --model tuned --pairs pairs.jsonl --sae "
        "SAE --out runs/first",
    )
    add_model(parser)
    parser.add_argument("--against", help="the other model; both read the prompts of --texts")
    add_sae(parser)
    add_site(parser)
    add_sinks(parser)
    parser.add_argument(
        "--texts", type=Path, help="with --against: text file, JSONL file or run directory"
    )
    add_pairs(parser, required=False)
    add_chat_template(parser)
    parser.add_argument(
        "--tokens",
        choices=("completion", "all"),
        default="completion",
        help="with --pairs: average over the completions, or over the prompts too",
    )
    parser.add_argument(
        "-k", "--k", type=positive_int, help="latents in the table; default: 100, or all"
    )
    parser.add_argument("--out", type=Path, required=True, help="directory to write, such as a run")
    parser.add_argument("--show", type=int, default=20, help="rows shown; default: 20")
    add_output(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Compare, write the table and every latent's values, show the top."""
    from deltalens.cli.loading import (
        choose_site,
        fill_from_pairs,
        load_model,
        load_sae,
        load_two_models,
        warn_of_other_site,
    )

    if (args.pairs is None) == (args.against is None) or (args.texts is None) != (
        args.against is None
    ):
        raise InputError("give either --pairs, or --against MODEL with --texts")
    read = _read_input(args)
    if args.pairs is not None:
        fill_from_pairs(args)
    sae = load_sae(args)
    site = choose_site(args, sae)
    original = None
    if args.against is None:
        model, tokenizer = load_model(args)
    else:
        model, original, tokenizer = load_two_models(args, args.against)
    warn_of_other_site(model, site, sae)
    found = _compare(args, model, original, tokenizer, read, sae, site)
    found.save(args.out)
    _show(args, found)


def _read_input(args: argparse.Namespace) -> Any:
    from deltalens.pairs import (
        read_pairs,
        read_texts,
    )

    if args.pairs is None:
        return read_texts(args.texts, as_chat=args.as_chat)
    return read_pairs(
        args.pairs,
        prompt_field=args.prompt_field,
        positive=args.positive,
        negative=args.negative,
        as_chat=args.as_chat,
    )


def _compare(
    args: argparse.Namespace,
    model: Any,
    original: Any,
    tokenizer: Any,
    read: Any,
    sae: Any,
    site: Any,
) -> Any:
    from deltalens.cli.loading import batch_options, sinks_of
    from deltalens.study import delta_activation, delta_activation_of_pairs

    options = {
        "site": site,
        "k": args.k or min(DEFAULT_K, sae.W_dec.n_latents),
        "sinks": sinks_of(args),
        "chat_template_kwargs": args.chat_template_kwargs,
        "progress": not args.quiet,
        **batch_options(args),
    }
    if args.pairs is not None:
        return delta_activation_of_pairs(model, tokenizer, read, sae, tokens=args.tokens, **options)
    return delta_activation(model, original, tokenizer, read, sae, **options)


def _show(args: argparse.Namespace, found: Any) -> None:
    from deltalens.cli.output import number, print_json, print_line, print_table

    if args.json:
        print_json(
            {
                "out": str(args.out),
                "prompts": found.prompts,
                **found.metadata,
                "latents": found.rows(),
            }
        )
        return
    columns = ("rank", "latent", "difference", "± s.e.", "mean", "other mean", "active", "other")
    rows = [
        [
            str(row["rank"]),
            str(row["latent"]),
            number(row["difference"]),
            f"{row['stderr']:.0e}",
            number(row["mean"]),
            number(row["mean_against"]),
            f"{row['frequency']:.1%}",
            f"{row['frequency_against']:.1%}",
        ]
        for row in found.rows()[: args.show]
    ]
    print_table(f"Top {len(rows)} latents by Δ-activation", columns, rows)
    print_line(f"{found.prompts} prompts; the values of all latents are in {args.out}")
