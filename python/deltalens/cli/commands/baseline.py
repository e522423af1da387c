"""``deltalens baseline``: the mean activation ā over a body of text."""

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
    add_sae,
    add_sinks,
    add_site,
    positive_int,
)
from deltalens.cli.processes import add_shard, note_command
from deltalens.errors import InputError


def configure(commands: Any) -> None:
    """Add the command to the parser."""
    parser = add_command(
        commands,
        "baseline",
        "average a site's activations over text, for use as the ablation baseline",
        "deltalens baseline --model google/gemma-2-2b --site 12 --texts web.txt "
        "--out baseline.safetensors\n  deltalens baseline --model google/gemma-2-2b "
        "--site 6 12 18 --texts web.txt --out baselines",
    )
    add_model(parser)
    add_chat_template(parser)
    add_site(parser, required=True, several=True)
    parser.add_argument(
        "--texts", type=Path, required=True, help="text file, JSONL file or run directory"
    )
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        help="baseline.safetensors to write; of several sites the directory to write them to",
    )
    parser.add_argument("--max-tokens", type=positive_int, help="stop after this many tokens")
    add_sae(parser, required=False, several=True)
    add_sinks(parser)
    parser.add_argument("--include-bos", action="store_true", help="average BOS positions too")
    add_shard(parser)
    add_output(parser)
    add_dry_run(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Compute and save."""
    from deltalens.cli.loading import batch_options, load_model, sinks_of
    from deltalens.cli.sites import Chosen, choose_sites, load_saes
    from deltalens.lm.several import resolve_sites
    from deltalens.pairs import read_texts
    from deltalens.study import mean_activation
    from deltalens.study.activation.mean import baseline_files

    if (args.out.suffix == ".safetensors") != (len(args.site) == 1):
        expected = "end in .safetensors" if len(args.site) == 1 else "be a directory"
        raise InputError(f"--out {args.out} must {expected} for {len(args.site)} sites")
    texts = read_texts(args.texts)
    saes = None if args.sae is None else load_saes(args)
    model, tokenizer = load_model(args)
    none = Chosen(args.site, [None] * len(args.site))
    chosen = none if saes is None else choose_sites(args, model, saes)
    note_command(args.out, args)
    means = mean_activation(
        model,
        tokenizer,
        texts,
        site=chosen.given(chosen.sites),
        sae=None if saes is None else chosen.given(chosen.saes),
        sinks=sinks_of(args),
        include_bos=args.include_bos,
        max_tokens=args.max_tokens,
        chat_template_kwargs=args.chat_template_kwargs,
        progress=not args.quiet,
        out=args.out,
        ranks=args.ranks,
        **batch_options(args),
    )
    files = baseline_files(args.out, resolve_sites(model, chosen.sites), chosen.several)
    _show(args, chosen.found(means), files, chosen.saes)


def _show(
    args: argparse.Namespace, baselines: list[Any], files: list[Path], saes: list[Any]
) -> None:
    from deltalens.cli.output import print_json

    each = list(zip(baselines, files, saes, strict=True))
    if args.json:
        said = [_as_json(*one) for one in each]
        print_json(said[0] if len(said) == 1 else {"baselines": said})
        return
    for one in each:
        _print(*one)


def _as_json(baseline: Any, file: Path, sae: Any) -> dict[str, Any]:
    return {
        "out": str(file),
        "tokens": baseline.tokens,
        "site": baseline.site,
        "d_model": baseline.d_model,
        "norm": float(baseline.mean.norm()),
        "latents": None if sae is None else sae.W_dec.n_latents,
        "provenance": baseline.provenance,
    }


def _print(baseline: Any, file: Path, sae: Any) -> None:
    from deltalens.cli.output import print_line

    also = "" if sae is None else f" and z̄ of {sae.W_dec.n_latents} latents"
    print_line(
        f"ā{also} over {baseline.tokens} tokens at {baseline.site}: "
        f"norm {float(baseline.mean.norm()):.4g}, written to {file}"
    )
    sinks = baseline.provenance["sinks"]
    if sinks["limit"] is not None:
        print_line(
            f"left out as attention sinks: {sinks['first']} first tokens, {sinks['massive']} with "
            f"norms above {sinks['limit']:.4g} (median {sinks['median']:.4g})"
        )
