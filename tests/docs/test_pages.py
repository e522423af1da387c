"""README is short and, like every page of docs/, true of the files that it names."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import deltalens
from deltalens.cli.config.parse import relaxed
from deltalens.cli.main import build_parser
from helpers.arrows import ROOT
from helpers.documentation import DOCS, PAGES, README, SHELLS, Block, blocks, commands, prose

WORDS = 900
LINK = re.compile(r"\]\(([^()\s]+)\)")
HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)
NUMBER = re.compile(r"[+−]?\d[\d,.]*\d\b")


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


def shell_blocks(page: Path) -> list[Block]:
    return [block for block in blocks(page) if block.language in SHELLS]


def test_the_readme_is_short():
    assert len(README.read_text(encoding="utf-8").split()) <= WORDS


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_relative_link_leads_somewhere(page):
    assert list(dead_links(page)) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_addresses_elsewhere_are_well_formed(page):
    """Whether they answer is asked by `make docs-links`, with a network."""
    for link in re.findall(r"\]\((\w+:[^()\s]+)\)", prose(page)):
        address = urlsplit(link)
        assert address.scheme == "https", link
        assert re.fullmatch(r"([\w-]+\.)+[a-z]+", address.netloc), link


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
    for block in blocks(page):
        code = block.text if block.language == "python" else ""
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "deltalens":
                assert hasattr(deltalens, node.attr), node.attr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_are_as_the_parser_takes_them(page):
    for block in shell_blocks(page):
        for command in commands(block):
            parser = build_parser()
            given_by_a_file = "--config" in command
            (relaxed(parser) if given_by_a_file else parser).parse_args(command)


def test_commands_are_found():
    found = [command for block in shell_blocks(DOCS / "using.md") for command in commands(block)]
    assert len(found) >= 15
    assert sum(map(len, map(commands, shell_blocks(README)))) >= 5


def test_make_has_the_targets_that_pages_name():
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    for page in PAGES:
        named = re.findall(r"(?:`|^ {4})make ([a-z][\w-]*)", page.read_text(encoding="utf-8"), re.M)
        assert set(named) <= set(targets), page.name
