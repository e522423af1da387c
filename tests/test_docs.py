"""README is short and, like every page of docs/, true of the files that it names."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest

import deltalens
from deltalens.cli.main import build_parser
from helpers.arrows import ROOT

README = ROOT / "README.md"
DOCS = ROOT / "docs"
PAGES = [README, ROOT / "CHANGELOG.md", ROOT / "SECURITY.md", *sorted(DOCS.glob("*.md"))]
WORDS = 900
FENCED = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
PYTHON = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
SHELL = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^()\s]+)\)")
HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)
NUMBER = re.compile(r"[+−]?\d[\d,.]*\d\b")


def prose(page: Path) -> str:
    """The page's text without its fenced code."""
    return FENCED.sub("", page.read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    """Fragments that lead to the page's headings, as GitHub makes them."""
    found: dict[str, int] = {}
    for heading in HEADING.findall(prose(page)):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        found[slug] = found.get(slug, -1) + 1
        if found[slug]:
            found[f"{slug}-{found[slug]}"] = 0
    return set(found)


def dead_links(page: Path) -> Iterator[str]:
    """Relative links of the page that lead to no file or no heading."""
    for link in LINK.findall(prose(page)):
        if re.match(r"\w+:", link):
            continue
        path, _, fragment = unquote(link).partition("#")
        target = page.parent / path if path else page
        if not target.exists() or (fragment and fragment not in anchors(target)):
            yield link


def commands(page: Path) -> list[str]:
    """Lines of the page that call deltalens in full, continued ones joined."""
    text = re.sub(r" *\\\n *", " ", page.read_text(encoding="utf-8"))
    typed = re.findall(r"^ {4,6}(deltalens [a-z].*)$", text, re.MULTILINE)
    for block in SHELL.findall(text):
        typed += re.findall(r"^(deltalens .*)$", block, re.MULTILINE)
    return [line for line in typed if "…" not in line]


def test_the_readme_is_short():
    assert len(README.read_text(encoding="utf-8").split()) <= WORDS


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_relative_link_leads_somewhere(page):
    assert list(dead_links(page)) == []


def test_dead_links_are_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# A `b` c!\n[1](#a-b-c) [2](page.md#d) [3](no.md) [4](https://no.no/x)\n")
    assert list(dead_links(page)) == ["page.md#d", "no.md"]


def test_the_table_of_contents_has_every_page():
    linked = set(LINK.findall(prose(DOCS / "README.md")))
    assert {page.name for page in DOCS.glob("*.md")} - linked == {"README.md"}


def test_numbers_in_the_readme_stand_in_the_pages_that_it_links_beside_them():
    checked = 0
    for block in re.split(r"\n\n|\n(?=[*|])", prose(README)):
        pages = [README.parent / link for link in LINK.findall(block) if link.endswith(".md")]
        told = "".join(page.read_text(encoding="utf-8") for page in pages)
        for number in NUMBER.findall(LINK.sub("", block)) if pages else []:
            assert number in told, (number, block)
            checked += 1
    assert checked >= 10


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_python_is_valid_and_names_what_the_package_has(page):
    for block in PYTHON.findall(page.read_text(encoding="utf-8")):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "deltalens":
                assert hasattr(deltalens, node.attr), node.attr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_are_as_the_parser_takes_them(page):
    for command in commands(page):
        build_parser().parse_args(shlex.split(command, comments=True)[1:])


def test_commands_are_found():
    assert len(commands(README)) >= 5
    assert len(commands(DOCS / "using.md")) >= 15


def test_make_has_the_targets_that_pages_name():
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    for page in PAGES:
        named = re.findall(r"(?:`|^ {4})make ([a-z][\w-]*)", page.read_text(encoding="utf-8"), re.M)
        assert set(named) <= set(targets), page.name
