"""Options under the names that a configuration has for them, and their values on both sides."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from deltalens.errors import InputError, quoted
from deltalens.visible import is_utf8

HERE = frozenset({"help", "config", "dry_run", "shard"})
"""Of this call, not of what is to be done."""
SHOWN = frozenset({"json", "quiet", "show"})
"""How results are shown."""


def subcommand(parser: argparse.ArgumentParser, command: str) -> argparse.ArgumentParser:
    """The parser of one command."""
    return subcommands(parser)[command]


def subcommands(parser: argparse.ArgumentParser) -> Mapping[str, argparse.ArgumentParser]:
    """Every command's parser."""
    return next(
        action.choices
        for action in parser._actions
        if isinstance(action, argparse._SubParsersAction)
    )


def options_of(parser: argparse.ArgumentParser) -> dict[str, argparse.Action]:
    """A command's options by name, those that a configuration may have: ``--batch-tokens`` is
    ``batch-tokens``, the argument ``RUN`` is ``run``."""
    return {_name(action): action for action in parser._actions if action.dest not in HERE}


def _name(action: argparse.Action) -> str:
    long = (text for text in action.option_strings if text.startswith("--"))
    return next(long, f"--{action.metavar or action.dest}")[2:].lower()


def rivals(parser: argparse.ArgumentParser, action: argparse.Action) -> list[argparse.Action]:
    """Those that cannot be given beside it."""
    groups = parser._mutually_exclusive_groups
    return [
        other
        for group in groups
        if action in group._group_actions
        for other in group._group_actions
        if other is not action
    ]


def given_values(
    parser: argparse.ArgumentParser, args: argparse.Namespace, left_out: Iterable[str]
) -> dict[str, Any]:
    """What ``args`` holds for every option, defaults too, as a configuration has it.

    Options that are None are left out, and of those that exclude each other what stands back.
    """
    named = {
        name: action for name, action in options_of(parser).items() if action.dest not in left_out
    }
    set_apart = [
        action
        for action in named.values()
        if getattr(args, action.dest, None) not in (None, action.default)
    ]
    excluded = {id(other) for action in set_apart for other in rivals(parser, action)}
    return {
        name: _plain(value)
        for name, action in named.items()
        if id(action) not in excluded
        and (value := getattr(args, action.dest, None)) not in (None, [], {})
    }


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def as_words(name: str, action: argparse.Action, value: Any) -> list[str]:
    """What gives ``value`` on the command line.

    Raises :class:`InputError` for a value of another kind than the option has.
    """
    if value is None or value in ([], {}):
        return []
    if action.nargs == 0:
        if not isinstance(value, bool):
            raise InputError(f"{name} is {quoted(value)}; it is true or false")
        return [action.option_strings[0]] if value else []
    if isinstance(value, dict):
        items = [f"{key}={json.dumps(one)}" for key, one in _mapping(name, action, value)]
    else:
        items = [_word(name, action, one) for one in _several(name, action, value)]
    if not action.option_strings:
        return items
    option = max(action.option_strings, key=len)
    return [f"{option}={items[0]}"] if action.nargs is None else [option, *items]


def _mapping(name: str, action: argparse.Action, value: dict[Any, Any]) -> Iterable[Any]:
    from deltalens.cli.arguments import NamedValues

    if not isinstance(action, NamedValues):
        raise InputError(f"{name} is a mapping; it takes {_kind(action)}")
    try:
        if not all(str(key).isidentifier() for key in value):
            raise ValueError
        json.dumps(value)
    except (TypeError, ValueError):
        raise InputError(
            f"{name} is {quoted(value)}, which is no mapping of names to JSON; mend it"
        ) from None
    return value.items()


def _several(name: str, action: argparse.Action, value: Any) -> list[Any]:
    from deltalens.cli.arguments import NamedValues

    if isinstance(action, NamedValues):
        raise InputError(f"{name} is {quoted(value)}; it takes a mapping of names to values")
    if not isinstance(value, list):
        return [value]
    if action.nargs is None:
        raise InputError(f"{name} is a list; it takes one value")
    return value


def _word(name: str, action: argparse.Action, value: Any) -> str:
    """One value as text; only what has a type of its own may be another thing than text."""
    number = isinstance(value, float) or (type(value) is int and abs(value) < 1 << 63)
    if not (isinstance(value, str) or (number and action.type not in (None, Path))):
        raise InputError(f"{name} is {quoted(value)}; it takes {_kind(action)}")
    text = value if isinstance(value, str) else repr(value)
    alone = action.nargs is not None or not action.option_strings
    if alone and text.startswith("-") and isinstance(value, str):
        raise InputError(f"{name} is {quoted(text)}, which begins with a dash; write ./{text}")
    if "\0" in text or not is_utf8(text):
        raise InputError(f"{name} is {quoted(text)}, which no argument can be; mend it")
    return text


def _kind(action: argparse.Action) -> str:
    if action.type in (None, Path):
        return "text (in quotes where YAML takes it for something else)"
    return "a value such as those that --help shows"
