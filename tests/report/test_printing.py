"""What is printed: the page, the open card, or the cards asked for; whole, and dark on light."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from deltalens.report import write_report
from helpers.browser import opened
from helpers.finished_run import add_detection, add_everything, make_run
from helpers.report_page import wait_for_card

A4 = {"width": 794, "height": 1123}
# Elements of the printed part that reach out of the sheet, or whose own content is cut off.
CUT = """(root) => [...document.querySelector(root).querySelectorAll('*')].filter((e) => {
  const box = e.getBoundingClientRect(), look = getComputedStyle(e);
  if (!box.width || look.visibility === 'hidden') return false;
  const hides = look.overflow !== 'visible' && !e.closest('svg');
  const clipped = hides && e.scrollHeight > e.clientHeight + 1;
  return box.right > innerWidth + 1 || box.left < -1 || clipped;
}).map((e) => e.outerHTML.slice(0, 120))"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[int], Path]:
    run = tmp_path_factory.mktemp("printing") / "run"
    result = make_run(run, latents=30, behaviour="bad advice")
    add_everything(run, result)
    add_detection(run, result)
    return result.latents.tolist(), write_report(run)


def sheets(pdf: bytes) -> int:
    return len(re.findall(rb"/Type\s*/Page\b", pdf))


def printed(page: Any) -> str:
    """What stands on the sheets at the moment of printing; the page goes on as before."""
    page.evaluate(
        "addEventListener('beforeprint', () => { document.body.dataset.sheet = "
        "document.getElementById('printed').innerText; }, { once: true })"
    )
    assert sheets(page.pdf(format="A4")) > 0
    return page.evaluate("document.body.dataset.sheet")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_whole_table_is_on_paper(browser: Any, made: Any, scheme: Any) -> None:
    with opened(browser, made[1], color_scheme=scheme, viewport=A4) as page:
        page.emulate_media(media="print", color_scheme=scheme)
        assert page.evaluate(CUT, "#ranking") == []
        rows = page.locator("#ranking tbody tr")
        assert rows.count() == 30
        assert all(row.is_visible() for row in rows.all())
        assert (
            page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        )
        assert page.locator("#ranking th").last.is_visible()
        assert printed(page) == ""


def test_an_open_card_is_what_is_printed(browser: Any, made: Any) -> None:
    latents, path = made
    with opened(browser, path, fragment=f"#latent-{latents[0]}", viewport=A4) as page:
        wait_for_card(page, latents[0])
        said = printed(page)
        assert said.startswith(f"Latent {latents[0]}")
        for head in ("Steering", "Sample completions", "Examples", "Where in the prompt"):
            assert head in said
        assert page.locator("#printed > *").count() == 0
        assert page.locator("#card").is_visible()


def test_cards_asked_for_are_printed_whole(browser: Any, made: Any) -> None:
    latents, path = made
    with opened(browser, path, viewport=A4, color_scheme="dark") as page:
        page.evaluate("window.print = () => { document.body.dataset.asked = 'yes'; }")
        page.fill("#ranking input", str(latents[1]))
        shown = [
            int(row.get_attribute("data-latent")) for row in page.locator("#ranking tbody tr").all()
        ]
        page.click("#print")
        page.locator("body[data-asked=yes]").wait_for()
        page.emulate_media(media="print", color_scheme="dark")
        assert not page.locator("main").is_visible()
        heads = page.locator("#printed > article > h2").all_inner_texts()
        assert heads == [f"Latent {latent}" for latent in shown]
        assert page.evaluate(CUT, "#printed") == []
        assert sheets(page.pdf(format="A4")) >= len(shown)
        page.emulate_media(media="screen")
        assert page.locator("main").is_visible()
