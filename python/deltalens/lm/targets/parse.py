"""Targets by their names."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

from deltalens.errors import InputError, quoted
from deltalens.lm.targets.objectives import Written
from deltalens.lm.targets.source import load_function
from deltalens.lm.targets.target import LOSS, Contrast, Function, Target, Tokens
from deltalens.storage.json_text import parse_json

KINDS = 'loss, first:8, text:…, regex:…, logits:" yes"|" no", probabilities:…|…, file.py:function'

_STRING = r'"(?:[^"\\]|\\.)*"'
_TWO = re.compile(rf"({_STRING})\|({_STRING})", re.DOTALL)
_FUNCTION = re.compile(r"(?P<path>.+\.py):(?P<name>[^\W\d]\w*)", re.DOTALL)


def parse_target(name: str, loss: str) -> Target:
    """The target called ``name``, with the way ``loss`` that log-losses are put together.

    A function's file is run. Raises :class:`InputError` for what is none, and for a ``loss`` that
    has no meaning with it.
    """
    if name == LOSS.name:
        return LOSS
    kind, colon, rest = name.partition(":")
    if colon and rest and kind in _MADE:
        found = _MADE[kind](name, rest)
    elif match := _FUNCTION.fullmatch(name):
        found = _function(Path(match["path"]), match["name"])
    else:
        raise InputError(f"target must be one of {KINDS}, got {quoted(name)}")
    if loss != "sum" and not isinstance(found, Tokens):
        raise InputError(
            f"loss={quoted(loss)} has no meaning with the target {found.name}, which is no loss of "
            "tokens; leave it out"
        )
    return found


def is_function(name: str) -> bool:
    """Whether ``name`` is that of a target which runs the user's code."""
    kind, colon, rest = name.partition(":")
    return not (colon and rest and kind in _MADE) and bool(_FUNCTION.fullmatch(name))


def _first(name: str, rest: str) -> Target:
    if not (rest.isascii() and rest.isdecimal() and int(rest[:18]) > 0):
        raise InputError(f"{quoted(name)}: give the number of first tokens, such as first:8")
    return Tokens(f"first:{int(rest)}", first=int(rest))


def _text(name: str, rest: str) -> Target:
    return Tokens(name, pattern=re.compile(re.escape(rest)))


def _regex(name: str, rest: str) -> Target:
    try:
        return Tokens(name, pattern=re.compile(rest))
    except (re.error, OverflowError, RecursionError) as error:
        raise InputError(f"{quoted(name)} is no regular expression: {error}") from error


def _contrast(name: str, rest: str, *, probabilities: bool) -> Target:
    match = _TWO.fullmatch(rest)
    if match is None:
        raise InputError(
            f"{quoted(name)}: give two answers as JSON strings with a bar between them, such as "
            'logits:" yes"|" no"'
        )
    first, second = (parse_json(answer) for answer in match.groups())
    return Contrast(name, answers=(first, second), probabilities=probabilities)


def _function(path: Path, name: str) -> Target:
    function, code = load_function(path, name)
    called = f"{path.name}:{name}"
    return Function(called, code, Written(function, called))


_MADE: dict[str, Callable[[str, str], Target]] = {
    "first": _first,
    "text": _text,
    "regex": _regex,
    "logits": partial(_contrast, probabilities=False),
    "probabilities": partial(_contrast, probabilities=True),
}
