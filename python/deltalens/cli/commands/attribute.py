"""``deltalens attribute``: rank the latents behind the difference of two sets of completions."""

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
from deltalens.cli.processes import add_shard, note_command

DEFAULT_K = 100


def configure(commands: Any) -> None:
    """Add the command to the parser."""
    parser = add_command(
        commands,
        "attribute",
        "rank SAE latents by their effect on positive over negative completions",
        "deltalens attribute --model google/gemma-2-2b --sae gemma-scope/layer_12/width_16k "
        "--pairs pairs.jsonl --baseline baseline.safetensors --out runs/first\n"
        "  deltalens attribute --model google/gemma-2-2b --site 6 12 18 --sae saes/ "
        "--pairs pairs.jsonl --baseline baselines/ --out runs/layers",
    )
    add_model(parser)
    add_sae(parser, several=True)
    add_site(parser, several=True)
    add_pairs(parser)
    add_chat_template(parser)
    _add_method(parser)
    add_sinks(parser)
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        help="run directory to write; of several sites each has its own below it, site-12 …",
    )
    parser.add_argument("--show", type=int, default=20, help="rows of the table; default: 20")
    add_shard(parser)
    add_output(parser)
    parser.set_defaults(run=run)


def _add_method(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("method")
    group.add_argument(
        "--baseline",
        required=True,
        help="a saved baseline (.safetensors), a directory of those of several sites, texts to "
        "average over now, or zero",
    )
    group.add_argument(
        "--score",
        choices=("direction", "latent"),
        default="direction",
        help="what stands for a latent: its direction's projection, or its own activation",
    )
    group.add_argument("-k", "--k", type=positive_int, help="latents to keep; default: 100, or all")
    group.add_argument("--ranking", choices=("top", "bottom", "abs"), default="top")
    group.add_argument(
        "--present-only", action="store_true", help="only latents present above the baseline"
    )
    group.add_argument(
        "--no-normalize", action="store_true", help="score decoder rows as stored, not unit rows"
    )
    group.add_argument("--loss", choices=("sum", "mean"), default="sum")
    group.add_argument("--gradients", choices=("plain", "integrated", "lrp"), default="plain")
    group.add_argument("--steps", type=positive_int, default=16, help="for integrated gradients")
    group.add_argument(
        "--check",
        type=int,
        metavar="N",
        help="ablate the first N latents for real, to see whether first order holds; default: 8",
    )
    group.add_argument(
        "--flips",
        type=int,
        metavar="N",
        help="sign flips of pairs, for p-values over all latents; 0 for none; default: 1000",
    )
    group.add_argument("--save-scores", action="store_true", help="write every latent's score")
    group.add_argument("--impl", default="auto", help="auto, cpp, torch, triton or reference")


def run(args: argparse.Namespace) -> None:
    """Attribute, write the run directories, show the top."""
    from deltalens.cli.loading import (
        batch_options,
        fill_from_pairs,
        load_model,
        loading_record,
        sinks_of,
    )
    from deltalens.cli.sites import choose_sites, load_baselines, load_saes, out_directories
    from deltalens.pairs import read_pairs
    from deltalens.study import attribute

    pairs = read_pairs(
        args.pairs,
        prompt_field=args.prompt_field,
        positive=args.positive,
        negative=args.negative,
        as_chat=args.as_chat,
    )
    fill_from_pairs(args)
    saes = load_saes(args)
    model, tokenizer = load_model(args)
    chosen = choose_sites(args, model, saes)
    encoded_with = chosen.saes if args.score == "latent" else None
    note_command(args.out, args)
    baselines = load_baselines(args, model, tokenizer, chosen, encoded_with)
    result = attribute(
        model,
        tokenizer,
        pairs,
        chosen.given(chosen.saes),
        site=chosen.given(chosen.sites),
        baseline=chosen.given(baselines),
        k=args.k or min(DEFAULT_K, *(sae.W_dec.n_latents for sae in chosen.saes)),
        score=args.score,
        normalize=False if args.no_normalize else None,
        ranking=args.ranking,
        present_only=args.present_only,
        loss=args.loss,
        gradients=args.gradients,
        steps=args.steps,
        sinks=sinks_of(args),
        save_scores=args.save_scores,
        chat_template_kwargs=args.chat_template_kwargs,
        run_dir=args.out,
        impl=args.impl,
        progress=not args.quiet,
        **({} if args.check is None else {"check": args.check}),
        **({} if args.flips is None else {"flips": args.flips}),
        metadata=loading_record(args),
        ranks=args.ranks,
        **batch_options(args),
    )
    results = chosen.found(result)
    directories = out_directories(args.out, model, chosen)
    if chosen.several:
        _show_several(args, results, directories)
    else:
        _show(args, results[0])


def _show(args: argparse.Namespace, result: Any) -> None:
    from deltalens.cli.attribution_table import print_attribution
    from deltalens.cli.output import print_json, print_line

    if args.json:
        print_json({"run": str(args.out), **summary(result)})
        return
    print_attribution(result, args.show)
    print_line(f"{len(result.pairs)} pairs; the run is in {args.out}")


def _show_several(args: argparse.Namespace, results: list[Any], directories: list[Path]) -> None:
    from deltalens.cli.attribution_table import print_sites
    from deltalens.cli.output import print_json, print_line

    if args.json:
        runs = zip(results, directories, strict=True)
        print_json(
            {
                "runs": [
                    {"run": str(directory), "site": result.site, **summary(result)}
                    for result, directory in runs
                ]
            }
        )
        return
    print_sites(results)
    print_line(
        f"{len(results[0].pairs)} pairs; the runs are in {directories[0]} … {directories[-1].name}"
    )


def summary(result: Any) -> dict[str, Any]:
    """The ranked latents as plain values."""
    from deltalens.study.attribution import COLUMNS

    values = {column: getattr(result, name).tolist() for name, (column, _) in COLUMNS.items()}
    values["sign_unsure"] = result.sign_unsure.tolist()
    return {
        "pairs": len(result.pairs),
        "certified": result.metadata.get("certified"),
        "significance": result.metadata.get("significance"),
        "stand_out": result.stand_out,
        "sinks": result.metadata.get("sinks"),
        "first_order": result.metadata.get("first_order"),
        "dominant_tokens": result.metadata.get("dominant_tokens"),
        "latents": [
            {
                "rank": rank + 1,
                "latent": latent,
                **{name: column[rank] for name, column in values.items()},
                "promotes": [token.text for token in result.lens_of(rank).promotes],
                "suppresses": [token.text for token in result.lens_of(rank).suppresses],
            }
            for rank, latent in enumerate(result.latents.tolist())
        ],
    }
