"""The command line, with what a configuration says in the place of options that it leaves out."""

from __future__ import annotations

import argparse
import copy
import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NoReturn

from deltalens.cli.config.document import Config, check_known, read_config
from deltalens.cli.config.names import as_words, options_of, rivals, subcommand, subcommands
from deltalens.cli.config.places import anchored
from deltalens.errors import InputError, quoted


def parse(parser: argparse.ArgumentParser, argv: Sequence[str], args: argparse.Namespace) -> None:
    """Parse ``argv`` into ``args``.

    With --config the process's directory is that of the configuration afterwards, and paths that
    were given on the command line are absolute.
    """
    given = {}
    if any(word.startswith("--c") for word in argv):
        given = vars(relaxed(parser).parse_args(argv))
    path: Path | None = given.pop("config", None)
    if path is None:
        parser.parse_args(argv, args)
        return
    args.command = command = given["command"]
    config = read_config(path)
    _check_command(path, config, command)
    words = _words(parser, str(path), config, command, given)
    # after options of any number of values, --config ends them
    parser.parse_args([command, *words, f"--config={path}", *argv[1:]], args)
    start = Path.cwd()
    for action in options_of(subcommand(parser, command)).values():
        if action.dest in given:
            setattr(args, action.dest, anchored(action, getattr(args, action.dest), start))
    os.chdir(config.directory)


def parse_config(parser: argparse.ArgumentParser, name: str, config: Config) -> argparse.Namespace:
    """The arguments of a configuration that says its command; errors call it ``name``."""
    command = config.command
    if command is None or command not in subcommands(parser):
        raise InputError(f"{name}: {quoted(command)} is no command of deltalens; mend it")
    words = _words(parser, name, config, command, ())
    return _raising(parser, name).parse_args([command, *words])


def _check_command(path: Path, config: Config, command: str) -> None:
    if config.command not in (None, command):
        raise InputError(
            f"{path} is a configuration of {quoted(config.command)}, and the command is {command}; "
            "give another file, or leave its command out"
        )


def _words(
    parser: argparse.ArgumentParser,
    name: str,
    config: Config,
    command: str,
    given: Collection[str],
) -> list[str]:
    """What the configuration adds to a command line that has ``given``, arguments first."""
    own = subcommand(parser, command)
    options = options_of(own)
    try:
        check_known(config.options, options, command)
        words = {
            option: as_words(option, options[option], value)
            for option, value in config.options.items()
        }
    except InputError as error:
        raise InputError(f"{name}: {error}") from None
    in_order = [option for option in words if not options[option].option_strings]
    in_order += [option for option in words if options[option].option_strings]
    # by themselves first, so that an error is known to be the file's
    every = [word for option in in_order for word in words[option]]
    _raising(relaxed(parser), name).parse_args([command, *every])
    for option in list(in_order):
        action = options[option]
        if any(one.dest in given for one in (action, *rivals(own, action))):
            in_order.remove(option)
    return [word for option in in_order for word in words[option]]


def relaxed(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """One that requires nothing and says of nothing but what is given."""
    found = copy.deepcopy(parser)
    for one in subcommands(found).values():
        one._defaults.clear()
        for action in one._actions:
            action.default, action.required = argparse.SUPPRESS, False
        for group in one._mutually_exclusive_groups:
            group.required = False
    return found


def _raising(parser: argparse.ArgumentParser, name: str) -> argparse.ArgumentParser:
    """One that says in one line, with ``name``, what is wrong."""

    def error(message: str) -> NoReturn:
        raise InputError(f"{name}: {message}")

    raising = copy.deepcopy(parser)
    for one in subcommands(raising).values():
        one.error = error  # type: ignore[method-assign]
    return raising
