"""A survey's page in a real browser: it shows the summary, opens reports, and is inert."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from deltalens.report import write_survey_report
from deltalens.study import Survey
from deltalens.study.survey.directory import Contents, Place
from deltalens.study.survey.summary import summary
from helpers.browser import opened
from helpers.finished_run import HOSTILE, hostile_texts, make_run
from helpers.report_page import unfold

BEHAVIOURS = [
    "bad advice",
    "<img src=x onerror=window.pwned=7>'\"&",
    "javascript:window.pwned=8",
    "100% #1? a&b",
    "{{map}}",
]
PLACES = [
    Place("blocks.3.hook_resid_post", None, "site-3", {}),
    Place("blocks.12.hook_mlp_out", "<b>16k</b>", "site-12-mlp_out/<b>16k<|b>", {}),
]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of runs with hostile texts; one study is missing and one was not tested."""
    directory = tmp_path_factory.mktemp("page") / "<i>survey"
    texts = hostile_texts()
    for name in BEHAVIOURS:
        for number, place in enumerate(PLACES):
            if name == BEHAVIOURS[2] and number:
                continue
            untested = name == BEHAVIOURS[3] and number == 1
            make_run(
                directory / name / place.directory,
                pairs=1 if untested else 6,
                texts=texts,
                behaviour=name,
                site={"name": place.site, "layer": (3, 12)[number]},
                certified=True,
                significance=significance(tested=not untested),
            )
    Contents({}, "model", BEHAVIOURS, PLACES).save(directory)
    return write_survey_report(directory)


def significance(*, tested: bool) -> dict[str, Any]:
    if not tested:
        return {"flips": 0, "sentence": "not tested"}
    return {
        "flips": 1001,
        "smallest_possible": 0.001,
        "smallest": 0.001,
        "stand_out_of_all": 1,
        "sentence": "said",
    }


def test_the_map_has_a_number_for_each_study(browser, page):
    found = summary(Survey.load(page.parent))
    with opened(browser, page) as shown:
        heads = shown.locator(".map thead th").all_inner_texts()
        assert heads == ["behaviour", "3", "12 mlp_out · <b>16k</b>"]
        rows = shown.locator(".map tbody tr").all()
        assert [row.locator("th").inner_text() for row in rows] == BEHAVIOURS
        at = {(s["behaviour"], s["site"]): s for s in found["studies"]}
        for name, row in zip(BEHAVIOURS, rows, strict=True):
            for place, cell in zip(PLACES, row.locator("td").all(), strict=True):
                study = at.get((name, place.site))
                if study is None or math.isnan(study["smallest"]):
                    assert cell.inner_text().strip() == "–"
                    continue
                star = "*" if study["adjusted"] <= 0.05 else ""
                said = cell.inner_text().split()
                assert said == [f"{study['stand_out']}{star}", "p", f"{study['smallest']:.2g}"]


def test_links_open_the_reports(browser, page):
    with opened(browser, page) as shown:
        links = shown.evaluate(
            "[...document.querySelectorAll('main a')].map(a => a.getAttribute('href'))"
        )
        assert len(links) > 30
        reports = {unquote(link.partition("#")[0]) for link in links}
        assert len(reports) == 9
        for link in links:
            assert ":" not in link
            assert not link.startswith("/")
        assert all((page.parent / report).is_file() for report in reports)
        targets = shown.evaluate("[...document.querySelectorAll('.map a')].map(a => a.href)")
    for target in targets:
        session = browser.new_context()
        report = session.new_page()
        report.goto(target)
        assert report.locator("#ranking tbody tr").count() == 12
        session.close()


def test_a_latent_link_opens_its_card(browser, page):
    session = browser.new_context()
    shown = session.new_page()
    shown.goto(page.resolve().as_uri())
    link = shown.locator("#studies td:nth-child(2) a").first
    latent = link.inner_text()
    link.click()
    assert f"latent {latent}" in shown.locator("#card-title").inner_text().lower()
    session.close()


def test_hostile_texts_are_shown_as_they_are(browser, page):
    with opened(browser, page) as shown:
        assert shown.evaluate("window.pwned") is None
        assert (
            shown.locator("img, iframe, object, embed, link, base, form, main script").count() == 0
        )
        assert shown.locator("script").count() == 1
        names = "[...document.querySelectorAll('*')].flatMap((e) => e.getAttributeNames())"
        assert not [name for name in shown.evaluate(names) if name.startswith("on")]
        unfold(shown)
        tokens = set(shown.locator(".token").all_inner_texts())
        expected = {text if said is None else said for text, said in HOSTILE.items()}
        assert tokens
        assert all(any(e.startswith(t.partition(" …")[0][:20]) for e in expected) for t in tokens)
        assert shown.inner_text("h1") == "What stands out where"


def test_shared_latents_have_ranks_in_each_behaviour(browser, page):
    found = summary(Survey.load(page.parent))
    with opened(browser, page) as shown:
        first = shown.locator("#shared details").first
        summed = first.locator("summary").inner_text()
        assert summed == "blocks.3.hook_resid_post – 12 latents in more than one ranking"
        row = first.locator("tbody tr").first.locator("td").all_inner_texts()
        latent = found["shared"][0]["latents"][0]
        assert row[0] == str(latent["latent"])
        assert row[1].split("\n")[0].rstrip("*") == f"{BEHAVIOURS[0]} #1"
        assert "same sign" in row[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_both_themes_can_be_read(browser, page, scheme):
    """Numbers of the map stand out from the cell that they are in (WCAG: 4.5 : 1)."""
    with opened(browser, page, color_scheme=scheme) as shown:
        assert shown.evaluate("document.documentElement.dataset.theme") == scheme
        ratios = shown.evaluate(CONTRAST)
        assert len(ratios) == 9
        assert min(ratios) >= 4.5
        shown.locator("#theme").click()
        assert shown.evaluate("document.documentElement.dataset.theme") != scheme


CONTRAST = """[...document.querySelectorAll('.map td a')].map((a) => {
  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const light = (colour) => {
    canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].map((v) => v / 255)
      .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const both = [getComputedStyle(a).color, getComputedStyle(a.closest('td')).backgroundColor];
  const [low, high] = both.map(light).sort((x, y) => x - y);
  return (high + 0.05) / (low + 0.05);
})"""
