"""Whatever models, judges and files say is shown as text, and only as text."""

from __future__ import annotations

from itertools import cycle
from pathlib import Path
from typing import Any

import pytest

from deltalens.report import write_report
from deltalens.study import Attribution
from helpers.browser import (
    opened,
)
from helpers.finished_run import (
    HOSTILE,
    add_everything,
    hostile_texts,
    make_run,
)
from helpers.report_page import unfold, wait_for_card

SHOWN = {text if shown is None else shown for text, shown in HOSTILE.items()}
FOLDER = "<img src=x onerror=window.pwned=7>'\"&"


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> tuple[Attribution, Path]:
    run, texts = tmp_path_factory.mktemp("hostile") / FOLDER, hostile_texts()
    result = make_run(run, texts=texts)
    add_everything(run, result, texts)
    other = run.parent / "other"
    make_run(other, texts=texts)
    return result, write_report(run, beside=[other])


def texts_at(page: Any, selector: str) -> set[str]:
    return set(page.locator(selector).all_inner_texts())


def assert_inert(page: Any) -> None:
    assert page.evaluate("window.pwned") is None
    assert page.locator("img, iframe, object, embed, link, base, form").count() == 0
    assert page.locator("script").count() == 2
    attributes = "[...document.querySelectorAll('*')].flatMap((e) => e.getAttributeNames())"
    assert not [name for name in page.evaluate(attributes) if name.startswith("on")]
    links = "[...document.querySelectorAll('a')].map((a) => a.getAttribute('href'))"
    assert all(href == "#ranking" or href.startswith("#latent-") for href in page.evaluate(links))


def test_the_page_shows_hostile_text_as_it_is(
    browser: Any, hostile: tuple[Attribution, Path]
) -> None:
    with opened(browser, hostile[1]) as page:
        unfold(page)
        assert_inert(page)
        behaviour = hostile[0].metadata["behaviour"]
        assert page.inner_text("h1") == f"Which latents cause {HOSTILE[behaviour] or behaviour}?"
        assert FOLDER in page.inner_text(".facts")
        assert texts_at(page, "#ranking .token") <= SHOWN
        assert len(texts_at(page, "#ranking .token")) > 5
        settings = page.inner_text("#settings")
        assert sum(text in settings for text in SHOWN) > 5
        for letter in "\u202e\u2028\x00\x1b":
            assert letter not in page.inner_text("body")


def test_every_card_shows_hostile_text_as_it_is(
    browser: Any, hostile: tuple[Attribution, Path]
) -> None:
    seen: dict[str, set[str]] = {}
    with opened(browser, hostile[1]) as page:
        for latent in hostile[0].latents.tolist():
            page.evaluate(f"location.hash = 'latent-{latent}'")
            wait_for_card(page, latent)
            unfold(page)
            assert_inert(page)
            for part in (".token", ".answer .text", ".prompt .text", ".strip span", ".names b"):
                seen.setdefault(part, set()).update(texts_at(page, f"#card {part}"))
            seen.setdefault(".grade", set()).update(texts_at(page, "#card .grade"))
    assert all(found and found <= SHOWN for found in seen.values())
    assert seen[".answer .text"] == seen[".strip span"] == SHOWN


def test_tips_of_points_are_text(browser: Any, hostile: tuple[Attribution, Path]) -> None:
    with opened(browser, hostile[1]) as page:
        for point in page.locator("[id^=point-] use").all():
            point.hover(force=True)
            assert page.locator("#tip").is_visible()
            assert page.locator("#tip :not(b, div)").count() == 0
        assert_inert(page)


def test_huge_texts_are_cut_and_say_so(browser: Any, tmp_path: Path) -> None:
    run, texts = tmp_path / "run", cycle(["long" * 50_000, "text" * 50_000])
    make_run(run, texts=lambda: next(texts), latents=3, pairs=2, tokens=2)
    page_file = write_report(run)
    assert page_file.stat().st_size < 200_000
    with opened(browser, page_file, viewport={"width": 390, "height": 800}) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        page.locator("#ranking tbody a").first.click()
        page.wait_for_selector("dialog[open]")
        unfold(page)
        said = texts_at(page, "#card .answer .text")
        assert said == {word * 375 + " … [198,500 more characters]" for word in ("long", "text")}
        assert page.eval_on_selector("#card", "e => e.scrollWidth - e.clientWidth") <= 0
