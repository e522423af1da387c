"""What a command is for and its options, from the parser that reads them."""

from __future__ import annotations

import argparse
import re
import textwrap
from collections.abc import Iterator

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from deltalens.cli.main import build_parser


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("command", Command)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


class Command(SphinxDirective):
    """Everything that ``deltalens NAME --help`` says."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        name = self.arguments[0]
        parser = commands().get(name)
        if parser is None:
            raise self.error(f"deltalens has no command {name}")
        described = paragraph(parser.description or "")
        return [described, *example(parser), *options(name, parser)]


def commands() -> dict[str, argparse.ArgumentParser]:
    """Of each command its parser."""
    (found,) = (
        action
        for action in build_parser()._actions
        if isinstance(action, argparse._SubParsersAction)
    )
    return dict(found.choices)


def paragraph(text: str) -> nodes.paragraph:
    """What a help text says; what it puts between backticks is code."""
    pieces = re.split(r"`(.+?)`", text)
    parts = [
        nodes.literal("", piece) if number % 2 else nodes.Text(piece)
        for number, piece in enumerate(pieces)
    ]
    return nodes.paragraph("", "", *parts)


def example(parser: argparse.ArgumentParser) -> list[nodes.Node]:
    """The epilog: its examples without their heading, to be copied as they are."""
    text = textwrap.dedent(re.sub(r"\Aexamples?:\n", "", (parser.epilog or "").strip("\n")))
    return [nodes.literal_block(text, text, language="sh")] if text else []


def options(name: str, parser: argparse.ArgumentParser) -> Iterator[nodes.Node]:
    for group in parser._action_groups:
        shown = [
            action
            for action in group._group_actions
            if action.help != argparse.SUPPRESS and action.dest != "help"
        ]
        if shown:
            yield nodes.rubric("", group.title or "")
            if group.description:
                yield paragraph(group.description)
            items = (option(name, parser, action) for action in shown)
            yield nodes.definition_list("", *items, classes=["options"])


def option(
    name: str, parser: argparse.ArgumentParser, action: argparse.Action
) -> nodes.definition_list_item:
    term = nodes.term("", "", nodes.literal("", typed(parser, action)))
    term["ids"] = [f"{name}-{action.dest.replace('_', '-')}"]
    said = (action.help or "") % {**vars(action), "prog": parser.prog}
    notes = [note for note in (said, *rules(parser, action)) if note]
    return nodes.definition_list_item("", term, nodes.definition("", paragraph("; ".join(notes))))


def typed(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    """As the option is typed: its names, then what it takes."""
    formatter = parser.formatter_class(prog=parser.prog, width=10_000)
    default = action.dest.upper() if action.option_strings else action.dest
    takes = "" if action.nargs == 0 else formatter._format_args(action, default)
    return " ".join(filter(None, [", ".join(action.option_strings), takes]))


def rules(parser: argparse.ArgumentParser, action: argparse.Action) -> Iterator[str]:
    if action.required and action.option_strings:
        yield "required"
    for group in parser._mutually_exclusive_groups:
        others = [
            other.option_strings[0]
            for other in group._group_actions
            if other is not action and other.option_strings
        ]
        if action in group._group_actions and others:
            yield f"not together with {', '.join(others)}"
