"""``deltalens ablate``: hold a run's first-order scores against exact ablation."""

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
    add_sae,
    positive_int,
)
from deltalens.cli.studies.method import add_target
from deltalens.errors import InputError


def configure(commands: Any) -> None:
    """Add the command to the parser."""
    parser = add_command(
        commands,
        "ablate",
        "ablate a run's top latents for real and compare with their first-order scores",
        "deltalens ablate runs/first --top 20",
    )
    parser.add_argument("run_dir", type=Path, metavar="RUN", help="run directory of `attribute`")
    parser.add_argument("--top", type=positive_int, default=20, help="latents; default: 20")
    parser.add_argument(
        "--compare-gradients",
        action="store_true",
        help="hold every kind of gradients against ablation, of the top latents and random ones",
    )
    parser.add_argument(
        "--random",
        type=positive_int,
        default=20,
        metavar="N",
        help="random latents for --compare-gradients; default: 20",
    )
    parser.add_argument(
        "--max-pairs",
        type=positive_int,
        metavar="N",
        help="of the run's pairs so many at most, evenly spaced, for --compare-gradients; "
        "default: all",
    )
    add_model(parser, required=False)
    add_chat_template(parser)
    add_target(parser, None)
    add_sae(parser, required=False)
    add_output(parser)
    add_dry_run(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Ablate, compare, write ``ablation.csv`` or ``gradients.csv`` into the run, print."""
    from deltalens.ranks.alone import alone
    from deltalens.ranks.ranks import ALONE
    from deltalens.storage.lock import lock_in

    with alone(lock_in(args.run_dir), ALONE):
        _run(args)


def _run(args: argparse.Namespace) -> None:
    from deltalens.cli.loading import (
        batch_options,
        fill_from_run,
        load_model,
        load_sae,
        warn_of_other_model,
    )
    from deltalens.cli.studies.target import target_of_run
    from deltalens.study import Attribution, ablate, compare_ablation
    from deltalens.study.ablation.table import first_order, write_ablation
    from deltalens.study.options import recorded_reading, recorded_sinks

    attribution = Attribution.load(args.run_dir)
    fill_from_run(args, attribution.metadata)
    sae = load_sae(args)
    model, tokenizer = load_model(args)
    warn_of_other_model(model, args, attribution.metadata)
    places = {
        "site": attribution.site,
        "baseline": attribution.baseline,
        "loss": attribution.metadata["options"]["loss"],
        "target": target_of_run(args.target, attribution.metadata["options"], args.run_dir),
        "sinks": recorded_sinks(attribution.metadata["options"]),
        "chat_template_kwargs": args.chat_template_kwargs,
        **vars(recorded_reading(attribution.metadata["options"])),
        "progress": not args.quiet,
        **batch_options(args),
    }
    given = model, tokenizer, attribution.pairs, sae
    score = attribution.metadata["options"].get("score", "direction")
    if args.compare_gradients:
        _compare(args, attribution, given, {"score": score, **places})
        return
    if args.max_pairs is not None:
        raise InputError("--max-pairs is for --compare-gradients; leave it out")
    latents = attribution.latents[: args.top]
    estimates = first_order(attribution, sae, len(latents))
    exact = ablate(*given, latents, score=score, **places)
    write_ablation(args.run_dir, latents, estimates, exact)
    _show(args, places["target"], latents, estimates, exact, compare_ablation(estimates, exact))


def _compare(
    args: argparse.Namespace, attribution: Any, given: tuple[Any, Any, Any, Any], places: Any
) -> None:
    """Every kind of gradients, of the run's pairs."""
    from deltalens.cli.studies.gradients import random_latents, show_gradients, write_gradients
    from deltalens.study import ablate
    from deltalens.study.ablation.first_order import spaced
    from deltalens.study.ablation.providers import first_order_by_gradients

    model, tokenizer, pairs, sae = given
    chosen = spaced(len(pairs), args.max_pairs or len(pairs))
    given = model, tokenizer, [pairs[number] for number in chosen], sae
    top = attribution.latents[: args.top].tolist()
    latents = [*top, *random_latents(sae.W_dec.n_latents, args.random, top)]
    steps = attribution.metadata["options"]["steps"]
    estimates = first_order_by_gradients(*given, latents, steps=steps, **places)
    exact = ablate(*given, latents, **places)
    write_gradients(args.run_dir, latents, estimates, exact, len(top))
    show_gradients(args.run_dir, estimates, exact, len(top), places["target"], as_json=args.json)


def _show(
    args: argparse.Namespace, target: str, latents: Any, estimates: Any, exact: Any, check: Any
) -> None:
    from deltalens.cli.ablation_table import print_ablation
    from deltalens.cli.output import print_json, print_line

    if not args.json:
        print_ablation(latents, estimates, exact, check)
        if target != "loss":
            print_line(f"target: {target}")
        return
    means = zip(latents.tolist(), estimates.mean(0).tolist(), exact.mean(0).tolist(), strict=True)
    rows = [{"latent": i, "first_order": first, "exact": true} for i, first, true in means]
    print_json({"run": str(args.run_dir), "target": target, **asdict(check), "latents": rows})
