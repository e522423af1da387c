"""The site is built without a warning, and shows itself without a network."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from deltalens.cli.main import build_parser
from helpers.documentation import DOCS, ROOT

SHOWN = ("index", "commands", "api", "method", "models")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built by what `make docs` types."""
    rule = re.search(r"-m sphinx (.+) docs build/docs$", (ROOT / "Makefile").read_text(), re.M)
    assert rule
    out = tmp_path_factory.mktemp("site")
    made = subprocess.run(
        [sys.executable, "-m", "sphinx", *rule[1].split(), str(DOCS), str(out)],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert (made.returncode, made.stderr) == (0, "")
    return out


def test_every_page_is_in_the_menu(site: Path) -> None:
    menu = (site / "index.html").read_text(encoding="utf-8")
    pages = {page.stem for page in DOCS.glob("*.md")} - {"index"}
    assert {page for page in pages if f'href="{page}.html"' not in menu} == set()


def test_every_option_is_on_the_page_of_commands(site: Path) -> None:
    page = (site / "commands.html").read_text(encoding="utf-8")
    (commands,) = build_parser()._subparsers._group_actions
    for name, parser in commands.choices.items():
        for action in parser._actions:
            assert f'id="{name}-{action.dest.replace("_", "-")}"' in page or action.dest == "help"


@pytest.mark.parametrize("name", SHOWN)
def test_a_page_loads_nothing_from_elsewhere(browser: Any, site: Path, name: str) -> None:
    page, heard = browser.new_page(), []
    page.on("console", lambda message: heard.append(message.text))
    page.on("pageerror", lambda error: heard.append(str(error)))
    page.on("requestfailed", lambda request: heard.append(f"failed: {request.url}"))
    page.on(
        "request",
        lambda request: (
            None if request.url.startswith(site.as_uri()) else heard.append(request.url)
        ),
    )
    page.goto((site / f"{name}.html").as_uri())
    assert page.locator("article h1").is_visible()
    page.close()
    assert heard == []


def test_formulas_are_shown_by_the_browser_itself(browser: Any, site: Path) -> None:
    page = browser.new_page()
    page.goto((site / "index.html").as_uri())
    displayed = page.locator("div.math math")
    assert displayed.count() == 1
    assert displayed.bounding_box()["height"] > 20
    page.close()
