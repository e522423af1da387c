"""``deltalens delta-activation``: rank latents by how much more active they are."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from deltalens.cli.arguments import (
    add_chat_template,
    add_command,
    add_dry_run,
    add_model,
    add_output,
    add_pairs,
    add_prefix_tokens,
    add_sae,
    add_sinks,
    add_site,
    positive_int,
)
from deltalens.cli.processes import add_shard, note_command
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
    add_sae(parser, several=True)
    add_site(parser, several=True)
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
    add_prefix_tokens(parser)
    parser.add_argument(
        "-k", "--k", type=positive_int, help="latents in the table; default: 100, or all"
    )
    parser.add_argument("--out", type=Path, required=True, help="directory to write, such as a run")
    parser.add_argument("--show", type=int, default=20, help="rows shown; default: 20")
    add_shard(parser)
    add_output(parser)
    add_dry_run(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Compare, write the table and every latent's values, show the top."""
    from deltalens.cli.loading import fill_from_pairs, load_model, load_two_models
    from deltalens.cli.sites import choose_sites, load_saes, out_directories

    if (args.pairs is None) == (args.against is None) or (args.texts is not None) != (
        args.against is not None
    ):
        raise InputError("give either --pairs, or --against MODEL with --texts")
    read = _read_input(args)
    if args.pairs is not None:
        fill_from_pairs(args, [args.pairs])
    saes = load_saes(args)
    original = None
    if args.against is None:
        model, tokenizer = load_model(args)
    else:
        model, original, tokenizer = load_two_models(args, args.against)
    chosen = choose_sites(args, model, saes)
    note_command(args.out, args)
    results = _compare(args, model, original, tokenizer, read, chosen)
    _show(args, results, out_directories(args.out, model, chosen))


def _read_input(args: argparse.Namespace) -> Any:
    from deltalens.cli.loading import load_pairs
    from deltalens.pairs import read_texts

    if args.pairs is None:
        return read_texts(args.texts, as_chat=args.as_chat)
    return load_pairs(args, args.pairs)


def _compare(
    args: argparse.Namespace,
    model: Any,
    original: Any,
    tokenizer: Any,
    read: Any,
    chosen: Any,
) -> list[Any]:
    from deltalens.cli.loading import batch_options, sinks_of
    from deltalens.study import delta_activation, delta_activation_of_pairs

    args.k = args.k or min(DEFAULT_K, *(sae.W_dec.n_latents for sae in chosen.saes))
    options = {
        "site": chosen.given(chosen.sites),
        "k": args.k,
        "sinks": sinks_of(args),
        "chat_template_kwargs": args.chat_template_kwargs,
        "progress": not args.quiet,
        "out": args.out,
        "ranks": args.ranks,
        **batch_options(args),
    }
    saes = chosen.given(chosen.saes)
    if args.pairs is None:
        return chosen.found(delta_activation(model, original, tokenizer, read, saes, **options))
    return chosen.found(
        delta_activation_of_pairs(
            model,
            tokenizer,
            read,
            saes,
            tokens=args.tokens,
            prefix_tokens=args.prefix_tokens,
            **options,
        )
    )


def _show(args: argparse.Namespace, results: list[Any], directories: list[Path]) -> None:
    from deltalens.cli.output import print_json

    each = list(zip(results, directories, strict=True))
    if args.json:
        said = [_as_json(*one) for one in each]
        print_json(said[0] if len(said) == 1 else {"sites": said})
        return
    for one in each:
        _print(args.show, *one)


def _as_json(found: Any, directory: Path) -> dict[str, Any]:
    return {
        "out": str(directory),
        "prompts": found.prompts,
        **found.metadata,
        "latents": found.rows(),
    }


def _print(show: int, found: Any, directory: Path) -> None:
    from deltalens.cli.output import number, print_line, print_table

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
        for row in found.rows()[:show]
    ]
    site = found.metadata["site"]
    print_table(f"Top {len(rows)} latents by Δ-activation at {site}", columns, rows)
    print_line(f"{found.prompts} prompts; the values of all latents are in {directory}")
