"""``deltalens completion``: what a shell needs to complete commands, options and files."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from deltalens.cli.arguments import add_command
from deltalens.errors import InputError

SHELLS = ("bash", "zsh", "fish", "tcsh")


def configure(commands: Any) -> None:
    """Add the command to the parser."""
    parser = add_command(
        commands,
        "completion",
        "print a script by which a shell completes commands, options, choices and files",
        "deltalens completion zsh > ~/.zfunc/_deltalens      # a directory in $fpath\n"
        '  eval "$(deltalens completion bash)"      # in ~/.bashrc\n'
        "  deltalens completion fish > ~/.config/fish/completions/deltalens.fish",
        configurable=False,
    )
    parser.add_argument("shell", choices=SHELLS)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Print the script."""
    try:
        import shtab
    except ImportError as error:
        raise InputError(
            "scripts for shells are written by shtab; pip install 'deltalens[completion]'"
        ) from error
    sys.stdout.write(shtab.complete(_marked(args.parser, shtab.FILE), shell=args.shell))


def _marked(parser: argparse.ArgumentParser, file: Any) -> argparse.ArgumentParser:
    """The parser, which says of its arguments what they may be where they do not say it."""
    from deltalens.cli.config.names import subcommands
    from deltalens.cli.config.places import is_place
    from deltalens.cli.help.topics import SUBJECTS

    commands = subcommands(parser)
    for command in commands.values():
        for action in command._actions:
            if is_place(action):
                action.complete = file  # type: ignore[attr-defined]
            elif action.dest == "topic":
                action.choices = [*SUBJECTS, *commands]
    return parser
