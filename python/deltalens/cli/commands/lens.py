"""``deltalens lens``: which tokens chosen latents write."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

from deltalens.cli.arguments import add_command, add_model, add_output, add_sae, positive_int


def configure(commands: Any) -> None:
    """Add the command to the parser."""
    parser = add_command(
        commands,
        "lens",
        "show the unembedding tokens nearest to latents' decoder directions, by cosine",
        "deltalens lens --model google/gemma-2-2b --sae gemma-scope/layer_12/width_16k "
        "--latents 11 4093",
    )
    add_model(parser)
    add_sae(parser)
    parser.add_argument("--latents", type=int, nargs="+", required=True, metavar="LATENT")
    parser.add_argument("--top", type=positive_int, default=10, help="tokens an end; default: 10")
    add_output(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Look the latents up and print their tokens."""
    from deltalens.cli.loading import load_model, load_sae
    from deltalens.cli.output import print_json, print_table, tokens
    from deltalens.study import lens

    sae = load_sae(args)
    model, tokenizer = load_model(args)
    found = lens(model, tokenizer, sae, args.latents, top=args.top)
    if args.json:
        print_json([_as_json(entry) for entry in found])
        return
    rows = [
        [
            str(entry.latent),
            f"{entry.promotes[0].cosine:.3f}",
            tokens(entry.promotes, args.top),
            tokens(entry.suppresses, args.top),
        ]
        for entry in found
    ]
    columns = ("latent", "best cosine", "promotes", "suppresses")
    print_table("Nearest unembedding tokens", columns, rows, left=columns[2:])


def _as_json(entry: Any) -> dict[str, Any]:
    ends = {
        name: [token._asdict() for token in getattr(entry, name)]
        for name in ("promotes", "suppresses")
    }
    return {**asdict(entry), **ends}
