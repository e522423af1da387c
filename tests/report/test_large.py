"""A page of many latents: rows that follow, cards on demand, and what stays in reach."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from deltalens.report import write_report
from deltalens.study import Attribution
from helpers.browser import opened
from helpers.large_run import make_large_run
from helpers.report_page import carried, unfold, wait_for_card, written

LATENTS = 150


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> tuple[Attribution, Path]:
    run = tmp_path_factory.mktemp("large") / "run"
    result = make_large_run(run, latents=LATENTS, pairs=20, steered=5)
    return result, write_report(run)


def rows(page: Any) -> list[int]:
    page.locator(f"#ranking tbody tr:nth-child({LATENTS})").wait_for(state="attached")
    return page.evaluate(
        "[...document.querySelectorAll('#ranking tbody tr')].map((e) => Number(e.dataset.latent))"
    )


def test_what_cards_share_is_carried_once(large: tuple[Attribution, Path]) -> None:
    document = carried(large[1])
    assert not {"pairs", "completions", "tokens"} & document.keys()
    assert not {"examples", "per_pair", "per_token"} & document["latents"][0].keys()
    whole = written(large[1])
    assert len(whole["pairs"]) == len(whole["completions"]) == 20
    assert all(len(one["per_pair"]) == 20 for one in whole["latents"] if one["rank"])
    per_latent = large[1].stat().st_size / LATENTS
    assert per_latent * 1000 < 10e6


def test_all_rows_come_and_sort(browser: Any, large: tuple[Attribution, Path]) -> None:
    result, path = large
    with opened(browser, path) as page:
        assert rows(page) == result.latents.tolist()
        page.locator("#ranking th button", has_text="push").click()
        order = result.push.argsort(stable=True)
        assert rows(page) == result.latents[order].tolist()
        page.fill("#ranking input", str(int(result.latents[-1])))
        page.wait_for_timeout(100)  # rows that were to follow no longer do
        assert page.locator("#ranking tbody tr").count() < LATENTS


def test_a_latent_far_down_is_found_and_opened(
    browser: Any, large: tuple[Attribution, Path]
) -> None:
    result, path = large
    last = int(result.latents[-1])
    with opened(browser, path, fragment=f"#latent-{last}") as page:
        wait_for_card(page, last)
        unfold(page)
        bars = page.locator("#card .effect")
        assert bars.count() == 20
        largest = int(result.per_pair[:, -1].abs().argmax())
        assert bars.first.locator(".prompt .text").inner_text().strip()
        assert bars.first.locator("summary").first.inner_text().startswith(f"pair-{largest}")
        page.keyboard.press("Escape")
        rows(page)
        assert page.evaluate("(text) => window.find(text)", str(last))
