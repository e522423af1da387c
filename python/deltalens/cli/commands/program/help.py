"""``deltalens help``: pages on commands and subjects."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from deltalens.cli.arguments import add_command
from deltalens.visible import visible_lines


def configure(commands: Any) -> None:
    """Add the command to the parser."""
    parser = add_command(
        commands,
        "help",
        "show a page on a command or a subject, or list both",
        "deltalens help\n  deltalens help sites\n  deltalens help attribute",
        configurable=False,
    )
    parser.add_argument("topic", nargs="?", metavar="TOPIC", help="default: the list of topics")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Show the page, through a pager on a terminal."""
    from rich.markdown import Markdown
    from rich.text import Text

    from deltalens.cli.config.names import subcommands
    from deltalens.cli.help.topics import SUBJECTS, check_topic, page

    commands = subcommands(args.parser)
    if args.topic is None:
        _show(_contents({name: one.description or "" for name, one in commands.items()}))
        return
    check_topic(args.topic, commands)
    if args.topic in SUBJECTS:
        _show(Markdown(visible_lines(page(args.topic))))
    else:
        _show(Text(visible_lines(commands[args.topic].format_help())))


def _show(shown: Any) -> None:
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console.print(shown)
        return
    with console.pager(styles=console.color_system is not None):
        console.print(shown)


def _contents(commands: Mapping[str, str]) -> Any:
    from rich.console import Group
    from rich.table import Table

    from deltalens.cli.help.topics import SUBJECTS

    parts: list[Any] = ["`deltalens help TOPIC` shows a page on one of these."]
    for title, topics in (("Subjects", SUBJECTS), ("Commands", commands)):
        table = Table.grid(padding=(0, 2))
        for name, summary in topics.items():
            table.add_row(f"  {name}", summary.rstrip("."))
        parts += [f"\n{title}", table]
    return Group(*parts)
