"""``deltalens plan``: what a scan would do and cost."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

from deltalens.cli.arguments import add_command, add_sae, positive_int
from deltalens.errors import InputError


def configure(commands: Any) -> None:
    """Add the command to the parser."""
    parser = add_command(
        commands,
        "plan",
        "print which form and implementation a scan would use, and its estimated cost",
        "deltalens plan --tokens 60000 --n-latents 2097152 --d-model 4096",
    )
    parser.add_argument("--tokens", type=positive_int, required=True, help="prompt tokens in all")
    parser.add_argument(
        "--pairs",
        type=positive_int,
        help="of these tokens: estimate p-values over all latents, too",
    )
    parser.add_argument("--flips", type=positive_int, default=1000, help="default: 1000")
    parser.add_argument("--n-latents", type=positive_int, help="or give --sae")
    parser.add_argument("--d-model", type=positive_int, help="or give --sae")
    parser.add_argument("-k", "--k", type=positive_int, default=100)
    parser.add_argument(
        "--decoder-dtype", choices=("float32", "bfloat16", "float16"), help="default: float32"
    )
    parser.add_argument("--form", choices=("auto", "token", "quadratic"), default="auto")
    parser.add_argument("--impl", default="auto", help="auto, cpp, torch, triton or reference")
    parser.add_argument("--device", default="cpu", help="cpu, cuda …")
    parser.add_argument("--measure", action="store_true", help="measure rates first, and keep them")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    add_sae(parser, required=False)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Plan and print."""
    from deltalens.cli.models.pretrained import choose_device
    from deltalens.engine import plan
    from deltalens.engine.cost.resampling import resampling_cost
    from deltalens.engine.trust.rates import known_roofs, measure

    n_latents, d_model, dtype = _decoder_shape(args)
    device = choose_device(args.device)
    shared = {
        "dtype": dtype,
        "device": device,
        "impl": args.impl,
        "resident": args.sae is None,
        "roofs": (measure if args.measure else known_roofs)(device),
    }
    chosen = plan(args.tokens, n_latents, d_model, k=args.k, form=args.form, **shared)
    apart = None
    if args.pairs is not None:
        apart = resampling_cost(
            args.tokens, args.pairs, n_latents, d_model, flips=args.flips, **shared
        )
    _show(args, chosen, apart)


def _decoder_shape(args: argparse.Namespace) -> tuple[int, int, Any]:
    import torch

    from deltalens.cli.loading import load_sae

    if args.sae is not None:
        decoder = load_sae(args).W_dec
        return decoder.n_latents, decoder.d_model, decoder.dtype
    if args.n_latents is None or args.d_model is None:
        raise InputError("give --n-latents and --d-model, or --sae to read them from")
    return args.n_latents, args.d_model, getattr(torch, args.decoder_dtype or "float32")


def _show(args: argparse.Namespace, chosen: Any, apart: Any) -> None:
    from deltalens.cli.doctor.rates import rates_line
    from deltalens.cli.output import print_json, print_line, print_table
    from deltalens.engine.cost.shown import plan_view

    if args.json:
        flips = {} if apart is None else {"significance": asdict(apart)}
        print_json({**asdict(chosen), **flips})
        return
    view = plan_view(chosen)
    for table in view.tables:
        print_table(view.title, table.columns, table.rows, left=table.left)
    steps = ", ".join(f"{step.name} {step.seconds:.3f}" for step in chosen.cost.steps)
    print_line(f"seconds of {chosen.form}/{chosen.impl}: {steps}")
    if apart is not None:
        print_line(_flips(args, apart))
    print_line(rates_line(chosen.roofs))


def _flips(args: argparse.Namespace, apart: Any) -> str:
    steps = ", ".join(f"{step.name} {step.seconds:,.3f}" for step in apart.steps)
    return (
        f"p-values by {args.flips:,} sign flips of {args.pairs:,} pairs, beyond that: "
        f"{apart.seconds:,.3f} seconds in a pass ({apart.form} form, impl {apart.impl}; {steps}), "
        f"{apart.flop / 1e9:,.0f} GFLOP, {apart.memory / 2**20:,.0f} MiB; attribute --flips 0 "
        "leaves them out"
    )
