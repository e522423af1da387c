"""A headless Chromium that opens pages from disk and notices whatever they should not do."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
NAMES = ("chromium", "chromium-browser", "google-chrome")


def chromium_path() -> str | None:
    """DELTALENS_CHROMIUM, or the first browser on PATH."""
    found = (shutil.which(name) for name in NAMES)
    return os.environ.get("DELTALENS_CHROMIUM") or next(filter(None, found), None)


@contextmanager
def chromium() -> Iterator[Any]:
    """The browser; the test is skipped, or fails where one is required, without it."""
    path = chromium_path()
    if path is None:
        if os.environ.get("DELTALENS_REQUIRE_BROWSER") == "1":
            pytest.fail(f"a browser is required and none of {', '.join(NAMES)} is installed")
        pytest.skip("no Chromium; install one or name it in DELTALENS_CHROMIUM")
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


@contextmanager
def opened(browser: Any, path: Path, *, fragment: str = "", **context: Any) -> Iterator[Any]:
    """A page of its own; in the end it must have asked for nothing but itself and said nothing."""
    session = browser.new_context(**context)
    page, heard = session.new_page(), []
    address = path.resolve().as_uri()
    page.on("console", lambda message: heard.append(message.text))
    page.on("pageerror", lambda error: heard.append(str(error)))
    page.on("dialog", lambda dialog: heard.append(dialog.message))
    page.on("request", lambda request: heard.append(request.url) if request.url != address else 0)
    page.goto(address + fragment)
    yield page
    session.close()
    assert heard == []
