"""Arguments that several commands share."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from deltalens.storage.json_text import parse_json

DTYPES = ("auto", "float32", "bfloat16", "float16")


def add_command(
    commands: Any, name: str, summary: str, example: str, *, configurable: bool = True
) -> argparse.ArgumentParser:
    """A subcommand whose --help ends with ``example``; with --config unless told otherwise."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    if configurable:
        parser.add_argument(
            "--config",
            type=Path,
            metavar="FILE",
            help="YAML with options by their names, such as a run's config.yaml; what is given "
            "here goes before it (deltalens help config)",
        )
    return parser


def add_model(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """--model and how it is loaded."""
    group = parser.add_argument_group("model")
    group.add_argument(
        "--model",
        required=required,
        help="directory or hub id of a language model or of a PEFT adapter, or a GGUF file",
    )
    group.add_argument("--revision", help="branch, tag or commit of a hub model")
    group.add_argument("--base", help="base of an adapter; default: the one that it names")
    group.add_argument("--tokenizer", help="directory or hub id; default: the model's own")
    group.add_argument("--gguf-file", help="name of a GGUF file in the model's directory")
    group.add_argument("--device", default="auto", help="cpu, cuda, cuda:1 …; default: auto")
    group.add_argument(
        "--device-map",
        help="place the weights through accelerate: auto, balanced, or JSON such as "
        '\'{"model": 0, "lm_head": "cpu"}\'',
    )
    group.add_argument(
        "--dtype", choices=DTYPES, default="auto", help="default: as the checkpoint was saved"
    )
    group.add_argument(
        "--batch-tokens", type=positive_int, help="padded tokens per batch; halved when memory ends"
    )


def add_chat_template(group: Any, prefix: str = "") -> None:
    """--chat-template-kwargs, with ``prefix`` those of another model."""
    group.add_argument(
        f"--{prefix}chat-template-kwargs",
        nargs="+",
        type=key_value,
        action=NamedValues,
        metavar="KEY=VALUE",
        help="arguments of the chat template, such as enable_thinking=false; values are JSON, or "
        "else text",
    )


def add_as_chat(group: Any, what: str) -> None:
    """--as-chat."""
    group.add_argument(
        "--as-chat", action="store_true", help=f"{what} that are plain text are what a user says"
    )


class NamedValues(argparse.Action):
    """Pairs of names and values as a dictionary."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option: Any = None) -> None:
        setattr(
            namespace, self.dest, {**(getattr(namespace, self.dest, None) or {}), **dict(values)}
        )


def key_value(text: str) -> tuple[str, Any]:
    """KEY=VALUE, the value a JSON value where it is one; argparse reports anything else."""
    key, equals, value = text.partition("=")
    if not equals or not key.isidentifier():
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE")
    try:
        return key, parse_json(value)
    except ValueError:
        return key, value


def add_sae(
    parser: argparse.ArgumentParser,
    *,
    required: bool = True,
    several: bool = False,
    named: str = "",
) -> None:
    """--sae and how it is read; with ``several`` one or more of them, and ``named`` says how they
    may be named."""
    group = parser.add_argument_group("SAE")
    what = "SAE directory, file or hub folder org/repo/folder"
    if several:
        group.add_argument(
            "--sae",
            nargs="+",
            required=required,
            help=what + "; of several sites one for each, or a directory with them below it, told "
            "by what they say of themselves" + named,
        )
    else:
        group.add_argument("--sae", required=required, help=what)
    group.add_argument(
        "--sae-format", help="saelens, sparsify, gemma_scope …; default: by what is there"
    )
    group.add_argument(
        "--sae-part", help="layer, hookpoint or SOURCE:TARGET, where a checkpoint holds several"
    )
    group.add_argument("--sae-tensor", help="name of the decoder tensor in a bare file")


def add_neuronpedia(parser: argparse.ArgumentParser) -> None:
    """--neuronpedia."""
    parser.add_argument(
        "--neuronpedia",
        metavar="MODEL/SOURCE",
        help="Neuronpedia's name of the SAE, such as gemma-2-2b/12-gemmascope-res-16k, to link its "
        "latents there; default: what the SAE says, or where it was published does",
    )


def add_site(
    parser: argparse.ArgumentParser, *, required: bool = False, several: bool = False
) -> None:
    """--site; without it the SAE's own record decides; with ``several`` one or more of them."""
    more: dict[str, Any] = {"nargs": "+"} if several else {}
    parser.add_argument(
        "--site",
        type=site,
        required=required,
        **more,
        help="layer number (the block's output), or a name: blocks.12.hook_resid_post, "
        "blocks.12.hook_resid_mid, .hook_mlp_out, .hook_attn_out, blocks.0.hook_resid_pre, "
        "model.layers.12.mlp, 12-gemmascope-res-16k"
        + ("; several are read in one pass" if several else "")
        + ("" if required else "; default: where the SAE says it was trained"),
    )


def add_sinks(parser: argparse.ArgumentParser) -> None:
    """--keep-sinks and --sink-norm."""
    group = parser.add_argument_group("attention sinks")
    rule = group.add_mutually_exclusive_group()
    rule.add_argument(
        "--keep-sinks",
        action="store_true",
        help="count the first token of a text and those of massive norm too",
    )
    rule.add_argument(
        "--sink-norm",
        type=float,
        metavar="TIMES",
        help="leave out tokens of more than so many times the median norm; default: 10",
    )


def add_pairs(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """--pairs and the names of its fields."""
    group = add_pair_fields(parser)
    group.add_argument("--pairs", type=Path, required=required, help="JSONL file or run directory")


def add_pair_fields(parser: argparse.ArgumentParser) -> Any:
    """The names of pairs' fields."""
    group = parser.add_argument_group("pairs")
    group.add_argument("--prompt-field", help="default: prompt or messages")
    group.add_argument("--positive", default="positive", help="field with the behaviour")
    group.add_argument("--negative", default="negative", help="field without it")
    add_as_chat(group, "prompts")
    return group


def add_prefix_tokens(group: Any) -> None:
    """--prefix-tokens."""
    group.add_argument(
        "--prefix-tokens",
        type=non_negative_int,
        default=0,
        metavar="N",
        help="count the first N tokens of each completion as its prompt; default: 0",
    )


def add_output(parser: argparse.ArgumentParser) -> None:
    """--json and --quiet."""
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")


def add_dry_run(parser: argparse.ArgumentParser) -> None:
    """--dry-run, which the command line itself serves."""
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="check everything, say what there is to do and how long it takes by a rate measured "
        "on about one batch, and stop; nothing is written",
    )


def site(text: str) -> int | str:
    """A layer number where it is one."""
    return int(text) if text.lstrip("-").isdigit() else text


def positive_int(text: str) -> int:
    """An integer of at least 1; argparse reports anything else."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


def non_negative_int(text: str) -> int:
    """An integer of at least 0; argparse reports anything else."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"must be at least 0, got {value}")
    return value
