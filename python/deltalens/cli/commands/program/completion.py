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
        'eval "$(deltalens completion bash)"      # in ~/.bashrc\n'
        "  deltalens completion zsh > ~/.zfunc/_deltalens      # a directory in $fpath\n"
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
    from deltalens.cli.config.names import subcommands
    from deltalens.cli.config.places import is_place

    for command in subcommands(args.parser).values():
        for action in command._actions:
            if is_place(action):
                action.complete = shtab.FILE  # type: ignore[attr-defined]
    sys.stdout.write(shtab.complete(args.parser, shell=args.shell))
