"""``deltalens examples`` and ``show-examples``: where in a corpus latents are active."""

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
    """Add both commands to the parser."""
    _configure_collect(commands)
    _configure_show(commands)


def _configure_collect(commands: Any) -> None:
    parser = add_command(
        commands,
        "examples",
        "collect the windows of a corpus on which latents are most active, and a fair sample",
        "deltalens examples --model google/gemma-2-2b --sae SAE --texts web.txt "
        "--latents 17 4093 --out examples\n  deltalens examples --model NAME --sae SAE "
        "--texts web.txt --run runs/first\n  deltalens show-examples examples 17",
    )
    add_model(parser)
    add_chat_template(parser)
    add_sae(parser)
    add_site(parser)
    add_sinks(parser)
    parser.add_argument(
        "--texts", type=Path, required=True, help="text file, JSONL file or run directory"
    )
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--latents", type=int, nargs="+", metavar="LATENT")
    which.add_argument("--run", type=Path, dest="run_dir", metavar="RUN", help="its top-k latents")
    which.add_argument("--all", action="store_true", help="every latent of the SAE")
    parser.add_argument(
        "--out", type=Path, help="directory to write; default: the run, whose lines are added to"
    )
    _add_what_to_keep(parser)
    add_shard(parser)
    add_output(parser)
    add_dry_run(parser)
    parser.set_defaults(run=run)


def _add_what_to_keep(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what to keep")
    numbers = {
        "--top": (20, "windows of the largest activations; default: 20"),
        "--bins": (5, "equal groups by activation that the sample is cut into; default: 5"),
        "--per-bin": (4, "sampled windows in each group; default: 4"),
        "--before": (16, "tokens before a window's peak; default: 16"),
        "--after": (7, "tokens after it; default: 7"),
        "--context": (None, "tokens the model reads at once; default: 128, or the model's limit"),
        "--max-tokens": (None, "stop after this many tokens"),
        "--seed": (0, "of the sample; default: 0"),
    }
    for name, (default, text) in numbers.items():
        group.add_argument(name, type=int, default=default, help=text)
    group.add_argument(
        "--lens", type=int, help="nearest unembedding tokens; default: 10, with --all 0"
    )


def _configure_show(commands: Any) -> None:
    parser = add_command(
        commands,
        "show-examples",
        "show collected examples as highlighted text, in the terminal or as one HTML page",
        "deltalens show-examples examples 17 4093 --html examples.html",
    )
    parser.add_argument("directory", type=Path, metavar="DIR", help="what `examples` wrote")
    parser.add_argument("latents", type=int, nargs="*", metavar="LATENT", help="default: all")
    parser.add_argument("--top", type=positive_int, default=8, help="windows shown; default: 8")
    parser.add_argument("--html", type=Path, help="write a page with all windows to this file")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    parser.set_defaults(run=show)


def run(args: argparse.Namespace) -> None:
    """Collect, and say where the examples are."""
    from deltalens.cli.loading import (
        batch_options,
        choose_site,
        fill_chat_template,
        load_model,
        load_sae,
        sinks_of,
    )
    from deltalens.cli.loading import warn_of_other_site as warn
    from deltalens.cli.output import print_json, print_line
    from deltalens.examples import collect_examples
    from deltalens.pairs import read_texts
    from deltalens.study import Attribution

    out = args.out or args.run_dir
    if out is None:
        raise InputError("give --out DIR")
    latents = args.latents
    if args.run_dir is not None:
        result = Attribution.load(args.run_dir)
        latents = result.latents
        fill_chat_template(args, result.metadata["options"].get("chat_template_kwargs"))
    texts, sae = read_texts(args.texts), load_sae(args)
    site = choose_site(args.site, sae)
    model, tokenizer = load_model(args)
    warn(model, site, sae)
    note_command(out, args)
    summary = collect_examples(
        model,
        tokenizer,
        texts,
        sae,
        out,
        site=site,
        latents=latents,
        sinks=sinks_of(args),
        chat_template_kwargs=args.chat_template_kwargs,
        progress=not args.quiet,
        ranks=args.ranks,
        **_options(args),
        **batch_options(args),
    )
    if args.json:
        print_json({"out": str(out), **summary})
        return
    print_line(
        f"examples of {summary['latents']} latents from {summary['tokens']} tokens are in {out}; "
        f"deltalens show-examples {out} LATENT"
    )


def _options(args: argparse.Namespace) -> dict[str, Any]:
    names = ("top", "bins", "per_bin", "before", "after", "context", "max_tokens", "seed")
    given = {name: getattr(args, name) for name in names}
    if args.lens is None:
        args.lens = 0 if args.all else 10
    return {
        "lens_top": args.lens,
        **{name: value for name, value in given.items() if value is not None},
    }


def show(args: argparse.Namespace) -> None:
    """Print, or write the page."""
    from deltalens.cli.output import print_json, print_line
    from deltalens.examples.html import html_page
    from deltalens.examples.store import select_examples, write_page

    lines = select_examples(args.directory, args.latents)
    if args.html is not None:
        write_page(args.html, html_page(lines, f"Examples in {args.directory}"))
        print_line(f"written to {args.html}")
    elif args.json:
        print_json(list(lines))
    else:
        _print_windows(lines, args.top)


def _print_windows(lines: Any, top: int) -> None:
    from rich.console import Console

    from deltalens.examples.terminal import terminal_text

    console = Console()
    colour = console.is_terminal and console.color_system is not None and not console.no_color
    for line in lines:
        console.print(terminal_text(line, top, colour=colour), soft_wrap=not console.is_terminal)
