"""The page by keyboard alone, by addresses, and without its script."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deltalens.report import write_report
from deltalens.study import Attribution
from helpers.browser import opened
from helpers.finished_run import HOSTILE, add_everything, hostile_texts, make_run
from helpers.report_page import wait_for_card

FOCUSED = "document.activeElement.closest('#ranking tr')?.dataset.latent"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[int], Path]:
    run = tmp_path_factory.mktemp("keys") / "run"
    result = make_run(run, behaviour="bad advice")
    add_everything(run, result)
    return result.latents.tolist(), write_report(run, neuronpedia="gpt2-small/1-res_post_32k-oai")


@pytest.fixture
def page(browser: Any, made: tuple[list[int], Path]) -> Iterator[Any]:
    with opened(browser, made[1]) as page:
        yield page


def test_a_reader_without_a_mouse_reads_the_evidence(page: Any, made: Any) -> None:
    latents = made[0]
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    assert page.locator(".skip").bounding_box()["x"] >= 0
    page.keyboard.press("Enter")
    page.keyboard.press("j")
    assert page.evaluate(FOCUSED) == str(latents[0])
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("k")
    assert page.evaluate(FOCUSED) == str(latents[1])
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    wait_for_card(page, latents[1])
    assert page.evaluate("document.activeElement.id") == "card-title"
    page.keyboard.press("j")
    wait_for_card(page, latents[2])
    assert page.url.endswith(f"#latent-{latents[2]}")
    page.keyboard.press("Escape")
    assert page.locator("dialog[open]").count() == 0
    assert page.evaluate(FOCUSED) in {str(latents[1]), str(latents[2])}


def test_keys_are_listed_searched_and_switched_off(page: Any, made: Any) -> None:
    page.keyboard.press("/")
    page.keyboard.type("jk?/")
    assert page.input_value("#ranking input") == "jk?/"
    page.locator("#ranking thead button").first.focus()
    page.keyboard.press("?")
    listed = page.locator("#help kbd").all_inner_texts()
    assert {"j", "k", "/", "?", "Escape"} <= set(listed)
    page.keyboard.press("j")
    assert page.locator("#help").is_visible()
    page.locator("#help input").uncheck()
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    assert not page.locator("#help").is_visible()
    page.locator("#keys").click()
    assert page.locator("#help").is_visible()


def test_tabbing_leads_through_the_page_and_out_again(page: Any) -> None:
    seen = []
    for _ in range(200):
        page.keyboard.press("Tab")
        seen.append(page.evaluate("document.activeElement.tagName"))
        if seen[-1] == "BODY":
            break
    assert seen[-1] == "BODY"
    assert seen.count("A") > 12


def test_stepping_by_a_button_keeps_it_in_focus(browser: Any, made: Any) -> None:
    latents, path = made
    with opened(browser, path, fragment=f"#latent-{latents[0]}") as page:
        wait_for_card(page, latents[0])
        page.locator("[aria-label='Next latent']").focus()
        for at in (1, 2, 3):
            page.keyboard.press("Enter")
            wait_for_card(page, latents[at])
            assert page.evaluate("document.activeElement.ariaLabel") == "Next latent"


def test_an_address_opens_its_card_and_back_leaves_it(browser: Any, made: Any) -> None:
    latents, path = made
    session = browser.new_context()
    page = session.new_page()
    page.goto(path.resolve().as_uri())
    page.locator("#ranking tbody a").nth(0).click()
    wait_for_card(page, latents[0])
    page.go_back()
    page.wait_for_selector("dialog[open]", state="detached")
    page.go_forward()
    wait_for_card(page, latents[0])
    again = session.new_page()
    again.goto(page.url)
    wait_for_card(again, latents[0])
    again.goto(path.resolve().as_uri() + "#latent-999999")
    assert again.locator("dialog[open]").count() == 0
    again.locator(".absent", has_text="Latent 999999 is not on this page.").wait_for()
    session.close()


def test_latents_are_linked_at_neuronpedia(page: Any, made: Any) -> None:
    addresses = [
        f"https://www.neuronpedia.org/gpt2-small/1-res_post_32k-oai/{latent}" for latent in made[0]
    ]
    links = page.locator("#ranking .out")
    assert [link.get_attribute("href") for link in links.all()] == addresses
    assert links.first.get_attribute("rel") == "noopener noreferrer"
    page.locator("#ranking tbody a").first.click()
    wait_for_card(page, made[0][0])
    assert page.locator("#card .card-head a").get_attribute("href") == addresses[0]


def test_without_script_the_essentials_are_there(browser: Any, tmp_path: Path) -> None:
    run = tmp_path / "run"
    result: Attribution = make_run(run, texts=hostile_texts(), latents=120)
    with opened(browser, write_report(run), java_script_enabled=False) as page:
        rows = page.locator("noscript tbody tr")
        assert rows.count() == 100
        assert "The first 100 of 120 latents." in page.inner_text("#ranking")
        cells = [row.locator("td").nth(1).inner_text() for row in rows.all()[:3]]
        assert cells == [str(latent) for latent in result.latents[:3].tolist()]
        shown = {text if said is None else said for text, said in HOSTILE.items()}
        promoted = rows.first.locator("td").last.inner_text()
        assert any(text in promoted for text in shown)
        assert page.locator("img, iframe, object, embed, link, base, form").count() == 0
        assert page.locator(".findings li").count() > 0
