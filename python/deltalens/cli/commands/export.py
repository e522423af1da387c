"""``deltalens export``: a run's result for another tool."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from deltalens.cli.arguments import add_command, add_output, add_sae, positive_int
from deltalens.cli.loading import load_sae_of_run

FORMATS = ("csv", "safetensors", "neuronpedia", "gguf")
WITH_DIRECTIONS = ("safetensors", "gguf")


def configure(commands: Any) -> None:
    """Add the command to the parser."""
    parser = add_command(
        commands,
        "export",
        "write a run's latents for other tools, or as a vector that steers toward the behaviour",
        "deltalens export runs/first --format gguf --top 3 --strength 8 -o persona.gguf",
    )
    parser.add_argument("run_dir", type=Path, metavar="RUN", help="run directory of `attribute`")
    parser.add_argument("--format", choices=FORMATS, required=True)
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="FILE")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--latents", type=int, nargs="+", metavar="LATENT")
    which.add_argument(
        "--top", type=positive_int, help="default: all; for neuronpedia and gguf the first"
    )
    steering = parser.add_argument_group("steering (neuronpedia and gguf)")
    steering.add_argument(
        "--strength",
        type=float,
        default=1.0,
        help="of each latent, toward the behaviour; default: 1",
    )
    parser.add_argument(
        "--source",
        help="Neuronpedia's name of the SAE, such as gemma-2-2b/12-gemmascope-res-16k, for its "
        "form and for links in csv; default: the run's, where it is known",
    )
    steering.add_argument("--prompt", help="for neuronpedia; default: the run's first")
    add_sae(parser, required=False)
    add_output(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Read the run, write the file, say so."""
    from deltalens.cli.output import print_json, print_line
    from deltalens.study import Attribution, export

    result = Attribution.load(args.run_dir)
    latents = args.latents
    if args.top is not None:
        latents = result.latents[: args.top].tolist()
    export(
        result,
        args.out,
        args.format,
        latents=latents,
        decoder=load_sae_of_run(args, result.metadata) if args.format in WITH_DIRECTIONS else None,
        strength=args.strength,
        source=args.source,
        prompt=args.prompt,
    )
    if args.json:
        print_json({"run": str(args.run_dir), "format": args.format, "out": str(args.out)})
    else:
        print_line(f"{args.out} written")
