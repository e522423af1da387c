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
    add_model(parser, required=False)
    add_chat_template(parser)
    add_sae(parser, required=False)
    add_output(parser)
    add_dry_run(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Ablate, compare, write ``ablation.csv`` into the run, print."""
    from deltalens.cli.loading import (
        batch_options,
        fill_from_run,
        load_model,
        load_sae,
        warn_of_other_model,
    )
    from deltalens.study import Attribution, ablate, compare_ablation
    from deltalens.study.ablation.table import first_order, write_ablation
    from deltalens.study.options import recorded_sinks

    attribution = Attribution.load(args.run_dir)
    fill_from_run(args, attribution.metadata)
    sae = load_sae(args)
    model, tokenizer = load_model(args)
    warn_of_other_model(model, args, attribution.metadata)
    latents = attribution.latents[: args.top]
    estimates = first_order(attribution, sae, len(latents))
    exact = ablate(
        model,
        tokenizer,
        attribution.pairs,
        sae,
        latents,
        site=attribution.site,
        baseline=attribution.baseline,
        loss=attribution.metadata["options"]["loss"],
        sinks=recorded_sinks(attribution.metadata["options"]),
        chat_template_kwargs=args.chat_template_kwargs,
        progress=not args.quiet,
        **batch_options(args),
    )
    write_ablation(args.run_dir, latents, estimates, exact)
    _show(args, latents, estimates, exact, compare_ablation(estimates, exact))


def _show(args: argparse.Namespace, latents: Any, estimates: Any, exact: Any, check: Any) -> None:
    from deltalens.cli.ablation_table import print_ablation
    from deltalens.cli.output import print_json

    if not args.json:
        print_ablation(latents, estimates, exact, check)
        return
    means = zip(latents.tolist(), estimates.mean(0).tolist(), exact.mean(0).tolist(), strict=True)
    rows = [{"latent": i, "first_order": first, "exact": true} for i, first, true in means]
    print_json({"run": str(args.run_dir), **asdict(check), "latents": rows})
