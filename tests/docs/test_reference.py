"""Nothing is missing from the pages that the site makes of the parser and of docstrings."""

from __future__ import annotations

import argparse
import re

import deltalens
from deltalens.cli.main import build_parser
from helpers.documentation import DOCS


def named(page: str, pattern: str) -> list[str]:
    return re.findall(pattern, (DOCS / page).read_text(encoding="utf-8"), re.MULTILINE)


def test_every_command_has_a_place():
    (commands,) = (
        action.choices
        for action in build_parser()._actions
        if isinstance(action, argparse._SubParsersAction)
    )
    assert sorted(named("commands.md", r"^```\{command\} (.+)$")) == sorted(commands)
    assert sorted(named("commands.md", r"^### (.+)$")) == sorted(commands)


def test_every_public_name_has_a_place():
    assert sorted(named("api.md", r"^\.\. auto\w+:: deltalens\.(\w+)$")) == sorted(
        deltalens.__all__
    )
