"""``deltalens export``: a run's result, or its sweep, for another tool."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from deltalens.cli.arguments import add_as_chat, add_command, add_output, add_sae, positive_int
from deltalens.cli.loading import load_sae_of_run
from deltalens.errors import InputError

INSPECT = "inspect"
FORMATS = ("csv", "safetensors", "neuronpedia", "gguf", INSPECT)
WITH_DIRECTIONS = ("safetensors", "gguf")
_OF_LATENTS = ("latents", "top", "source", "prompt", "sae", "sae_format", "sae_part", "sae_tensor")


def configure(commands: Any) -> None:
    """Add the command to the parser."""
    parser = add_command(
        commands,
        "export",
        "write a run's latents for other tools or as a vector that steers toward the behaviour, or "
        "its sweep as Inspect's logs",
        "deltalens export runs/first --format gguf --top 3 --strength 8 -o persona.gguf\n"
        "  deltalens export runs/first --format inspect -o logs/first",
    )
    parser.add_argument("run_dir", type=Path, metavar="RUN", help="run directory of `attribute`")
    parser.add_argument("--format", choices=FORMATS, required=True)
    parser.add_argument(
        "-o",
        "--out",
        type=Path,
        required=True,
        metavar="FILE",
        help="for inspect a new directory: a log for each direction and condition of the sweep",
    )
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
    logs = parser.add_argument_group("inspect")
    logs.add_argument(
        "--targets",
        type=Path,
        metavar="FILE",
        help="questions (JSONL), each with a target for the scorers that will read the logs",
    )
    add_as_chat(logs, "prompts of --targets")
    add_sae(parser, required=False)
    add_output(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Read the run, write the file or the logs, say so."""
    from deltalens.cli.output import print_json, print_line

    said = _logs(args) if args.format == INSPECT else _latents(args)
    if args.json:
        print_json({"run": str(args.run_dir), "format": args.format, "out": str(args.out), **said})
    else:
        print_line(f"{args.out} written" + "".join(f": {n} {what}" for what, n in said.items()))


def _logs(args: argparse.Namespace) -> dict[str, int]:
    from deltalens.pairs.targets import read_targets
    from deltalens.report.eval_logs import write_inspect_logs

    given = [name for name in _OF_LATENTS if getattr(args, name) is not None]
    if given:
        name = given[0].replace("_", "-")
        raise InputError(f"--{name} is of latents, and inspect writes the sweep; leave it out")
    targets = None if args.targets is None else read_targets(args.targets, as_chat=args.as_chat)
    return {"logs": write_inspect_logs(args.run_dir, args.out, targets=targets)}


def _latents(args: argparse.Namespace) -> dict[str, int]:
    from deltalens.study import Attribution, export

    if args.targets is not None:
        raise InputError("--targets is for --format inspect; leave it out")
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
    return {}
