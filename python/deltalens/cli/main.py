"""``deltalens``: parse, run one command, and turn what a user can correct into one line."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, TextIO

from deltalens.cli.commands import COMMANDS
from deltalens.cli.config.parse import parse
from deltalens.cli.dry_run import run_command
from deltalens.cli.processes import join
from deltalens.errors import InputError
from deltalens.ranks.processes import joined
from deltalens.ranks.ranks import Ranks
from deltalens.ranks.shard import ShardDone
from deltalens.visible import visible, visible_lines

BAD_INPUT = 2
INTERRUPTED = 130

EPILOG = """\
examples:
  deltalens demo
  deltalens pairs --model MODEL --questions questions.yaml --judge my_judge.py:grade \\
      --out pairs.jsonl
  deltalens baseline --model MODEL --site 12 --texts web.txt --out baseline.safetensors
  deltalens attribute --model MODEL --sae SAE --pairs pairs.jsonl \\
      --baseline baseline.safetensors --out runs/first
  deltalens steer runs/first --against BASE --judge my_judge.py:grade
  deltalens report runs/first

`deltalens COMMAND --help` shows a command's options and an example, `deltalens help` lists pages on
files, sites, judges, configurations and more.
"""


class _Parser(argparse.ArgumentParser):
    def _print_message(self, message: str, file: Any = None) -> None:
        super()._print_message(visible_lines(message), file)


class _Version(argparse._VersionAction):
    """Found out only where it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from deltalens.cli.doctor.line import version_lines

        parser._print_message(version_lines() + "\n", sys.stdout)
        parser.exit()


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands; each sets ``run`` to its function."""
    parser = _Parser(
        prog="deltalens",
        description="Which of a model's SAE latents caused that behaviour?",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, help="show versions and what is installed")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for module in COMMANDS:
        module.configure(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the process's exit code."""
    args = argparse.Namespace(command="")
    try:
        return _run(argv, args)
    except KeyboardInterrupt:
        print(f"deltalens {args.command}".strip() + ": interrupted", file=sys.stderr)
        return INTERRUPTED


def _run(argv: Sequence[str] | None, args: argparse.Namespace) -> int:
    args.parser = build_parser()
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        parse(args.parser, sys.argv[1:] if argv is None else argv, args)
        with joined() as ranks, _speaking(ranks), warnings.catch_warnings():
            warnings.showwarning = _show_on_one_line
            join(args, ranks)
            run_command(args)
    except ShardDone as done:
        print(f"{visible(str(done))}; `deltalens merge` puts all of them together", file=sys.stderr)
    except InputError as error:
        return _fail(args.command, str(error))
    except OSError as error:
        return _fail(args.command, f"{error.filename or 'input/output'}: {error.strerror or error}")
    return 0


@contextmanager
def _speaking(ranks: Ranks) -> Iterator[None]:
    """Of several processes the first alone prints results."""
    with ExitStack() as stack:
        if not ranks.first:
            silence = stack.enter_context(Path(os.devnull).open("w", encoding="utf-8"))
            stack.enter_context(redirect_stdout(silence))
        yield


def _fail(command: str, message: str) -> int:
    print(f"deltalens {command}: error: {visible(' '.join(message.split()))}", file=sys.stderr)
    return BAD_INPUT


def _show_on_one_line(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    print(f"warning: {visible(' '.join(str(message).split()))}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
