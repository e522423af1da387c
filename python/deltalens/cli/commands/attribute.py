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

DEFAULT_K = 100


def configure(commands: Any) -> None:
    """Add the command to the parser."""
    parser = add_command(
        commands,
        "attribute",
        "rank SAE latents by their effect on positive over negative completions",
        "deltalens attribute --model google/gemma-2-2b --sae gemma-scope/layer_12/width_16k "
        "--pairs pairs.jsonl --baseline baseline.safetensors --out runs/first",
    )
    add_model(parser)
    add_sae(parser)
    add_site(parser)
    add_pairs(parser)
    add_chat_template(parser)
    _add_method(parser)
    add_sinks(parser)
    parser.add_argument("--out", type=Path, required=True, help="run directory to write")
    parser.add_argument("--show", type=int, default=20, help="rows of the table; default: 20")
    add_output(parser)
    parser.set_defaults(run=run)


def _add_method(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("method")
    group.add_argument(
        "--baseline",
        required=True,
        help="a saved baseline (.safetensors), texts to average over now, or zero",
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
    """Attribute, write the run directory, show the top."""
    from deltalens.cli.loading import (
        batch_options,
        choose_site,
        fill_from_pairs,
        load_baseline,
        load_model,
        load_sae,
        loading_record,
        sinks_of,
        warn_of_other_site,
    )
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
    sae = load_sae(args)
    site = choose_site(args, sae)
    model, tokenizer = load_model(args)
    warn_of_other_site(model, site, sae)
    result = attribute(
        model,
        tokenizer,
        pairs,
        sae,
        site=site,
        baseline=load_baseline(
            args.baseline,
            model,
            tokenizer,
            site,
            sinks_of(args),
            args.quiet,
            sae if args.score == "latent" else None,
            args.chat_template_kwargs,
        ),
        k=args.k or min(DEFAULT_K, sae.W_dec.n_latents),
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
        **batch_options(args),
    )
    _show(args, result)


def _show(args: argparse.Namespace, result: Any) -> None:
    from deltalens.cli.attribution_table import print_attribution
    from deltalens.cli.output import print_json, print_line

    if args.json:
        print_json({"run": str(args.out), **summary(result)})
        return
    print_attribution(result, args.show)
    print_line(f"{len(result.pairs)} pairs; the run is in {args.out}")


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
