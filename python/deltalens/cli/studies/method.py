"""How studies are made: options that the commands which make them share."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from deltalens.cli.arguments import add_prefix_tokens, positive_int

DEFAULT_K = 100


def add_method(parser: argparse.ArgumentParser, *, checked: int = 8, why: str = "") -> None:
    """The choices that studies of whatever pairs, sites and SAEs have; ``checked``: what --check is
    unless it is given, and ``why``."""
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
    add_target(group)
    add_prefix_tokens(group)
    group.add_argument(
        "--align",
        choices=("position", "given"),
        help="read pairs with a negative_prompt after their prompt alone, and take its tokens' "
        "activations at the same position, or as the pair's alignment says, for the baseline; "
        "default: each completion follows its own prompt",
    )
    group.add_argument(
        "--gradients",
        choices=("plain", "integrated", "integrated-latents", "relp", "relp-fixed-attention"),
        default="plain",
        help="of the model as it is, averaged on the way from the baseline (with --score latent "
        "also on that of the SAE's latents), or with its norms, activation functions and gated "
        "products (and attention patterns) held linear",
    )
    group.add_argument("--steps", type=positive_int, default=16, help="for integrated gradients")
    group.add_argument(
        "--check",
        type=int,
        default=checked,
        metavar="N",
        help="ablate the first N latents for real, to see whether first order holds; default: "
        f"{checked}{why}",
    )
    group.add_argument(
        "--flips",
        type=int,
        default=1000,
        metavar="N",
        help="sign flips of pairs, for p-values over all latents; 0 for none; default: 1000",
    )
    group.add_argument("--save-scores", action="store_true", help="write every latent's score")
    group.add_argument("--impl", default="auto", help="auto, cpp, torch, triton or reference")


def add_target(group: Any, default: str | None = "loss") -> None:
    """--target."""
    group.add_argument(
        "--target",
        default=default,
        help="which loss of the completions is differenced: loss (-log p of all their tokens; the "
        "default), first:8, text:…, regex:… (of some of their tokens), "
        """'logits:" yes"|" no"' or probabilities:… (of answers after them), or """
        "file.py:function(logits, ids), which is run"
        if default
        else "a function of your own, file.py:function, where that is what the run's target was: "
        "only a file that is named here is run",
    )


def request_options(args: argparse.Namespace, saes: Sequence[Any]) -> dict[str, Any]:
    """What studies with these SAEs are asked for by name."""
    from deltalens.cli.loading import batch_options, sinks_of

    args.k = args.k or min(DEFAULT_K, *(sae.W_dec.n_latents for sae in saes))
    return {
        "k": args.k,
        "score": args.score,
        "normalize": False if args.no_normalize else None,
        "ranking": args.ranking,
        "present_only": args.present_only,
        "loss": args.loss,
        "target": args.target,
        "gradients": args.gradients,
        "steps": args.steps,
        "sinks": sinks_of(args),
        "save_scores": args.save_scores,
        "chat_template_kwargs": args.chat_template_kwargs,
        "prefix_tokens": args.prefix_tokens,
        "align": args.align,
        "impl": args.impl,
        "progress": not args.quiet,
        "check": args.check,
        "flips": args.flips,
        "ranks": args.ranks,
        **batch_options(args),
    }
