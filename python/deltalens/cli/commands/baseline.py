"""``deltalens baseline``: the mean activation ā over a body of text."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from deltalens.cli.arguments import (
    add_chat_template,
    add_command,
    add_model,
    add_output,
    add_sae,
    add_sinks,
    add_site,
    positive_int,
)
from deltalens.errors import InputError


def configure(commands: Any) -> None:
    """Add the command to the parser."""
    parser = add_command(
        commands,
        "baseline",
        "average a site's activations over text, for use as the ablation baseline",
        "deltalens baseline --model google/gemma-2-2b --site 12 --texts web.txt "
        "--out baseline.safetensors",
    )
    add_model(parser)
    add_chat_template(parser)
    add_site(parser, required=True)
    parser.add_argument(
        "--texts", type=Path, required=True, help="text file, JSONL file or run directory"
    )
    parser.add_argument("--out", type=Path, required=True, help="baseline.safetensors to write")
    parser.add_argument("--max-tokens", type=positive_int, help="stop after this many tokens")
    add_sae(parser, required=False)
    add_sinks(parser)
    parser.add_argument("--include-bos", action="store_true", help="average BOS positions too")
    add_output(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Compute and save."""
    from deltalens.cli.loading import batch_options, load_model, load_sae, sinks_of
    from deltalens.cli.output import print_json, print_line
    from deltalens.pairs import read_texts
    from deltalens.study import mean_activation

    if args.out.suffix != ".safetensors":
        raise InputError(f"--out {args.out} must end in .safetensors")
    texts = read_texts(args.texts)
    sae = None if args.sae is None else load_sae(args)
    model, tokenizer = load_model(args)
    baseline = mean_activation(
        model,
        tokenizer,
        texts,
        site=args.site,
        sae=sae,
        sinks=sinks_of(args),
        include_bos=args.include_bos,
        max_tokens=args.max_tokens,
        chat_template_kwargs=args.chat_template_kwargs,
        progress=not args.quiet,
        **batch_options(args),
    )
    baseline.save(args.out)
    if args.json:
        print_json(
            {
                "out": str(args.out),
                "tokens": baseline.tokens,
                "site": baseline.site,
                "d_model": baseline.d_model,
                "norm": float(baseline.mean.norm()),
                "latents": None if sae is None else sae.W_dec.n_latents,
                "provenance": baseline.provenance,
            }
        )
        return
    also = "" if sae is None else f" and z̄ of {sae.W_dec.n_latents} latents"
    print_line(
        f"ā{also} over {baseline.tokens} tokens at {baseline.site}: "
        f"norm {float(baseline.mean.norm()):.4g}, written to {args.out}"
    )
    sinks = baseline.provenance["sinks"]
    if sinks["limit"] is not None:
        print_line(
            f"left out as attention sinks: {sinks['first']} first tokens, {sinks['massive']} with "
            f"norms above {sinks['limit']:.4g} (median {sinks['median']:.4g})"
        )
