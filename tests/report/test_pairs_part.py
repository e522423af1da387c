"""Held-out AUCs and completions token by token, on the page and in its document."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from deltalens.report import write_report
from deltalens.report.document import as_script_data, report_document
from deltalens.report.evidence import gather
from deltalens.report.findings import findings
from deltalens.report.packing import packed
from deltalens.study import Attribution
from helpers.browser import opened
from helpers.finished_run import (
    HOSTILE,
    add_detection,
    add_log_probs,
    hostile_texts,
    make_run,
    plain_texts,
)
from helpers.report_page import unfold, wait_for_card

SHOWN = {text if shown is None else shown for text, shown in HOSTILE.items()}
HEBREW = "\u05e9\u05dc\u05d5\u05dd"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Attribution, Path]:
    run = tmp_path_factory.mktemp("pairs") / "run"
    result = make_run(run)
    add_detection(run, result)
    add_log_probs(run, len(result.pairs), plain_texts(), tokens=100)
    return result, run


def test_the_document_has_every_latents_auc(made: tuple[Attribution, Path]) -> None:
    evidence = gather(made[1])
    assert evidence.detection is not None
    document = report_document(evidence)
    for one in document["latents"]:
        told = evidence.detection.of_latent(one["latent"])
        assert [row["auc"] for row in one["detection"]] == [row.auc for row in told]
    assert any(text.startswith("Held out: 40 completions") for text in findings(evidence))


def test_completions_are_whole_and_rounded(made: tuple[Attribution, Path]) -> None:
    evidence = gather(made[1])
    assert evidence.log_probs is not None
    document = report_document(evidence)
    for both, shown in zip(evidence.log_probs, document["completions"], strict=True):
        for side, found in zip((both.positive, both.negative), shown, strict=True):
            assert found["tokens"] == side.tokens
            assert found["log_p"] == pytest.approx(side.log_p, rel=5e-3, abs=5e-4)
            assert (found["count"], found["rest"]) == (100, "")


def test_the_page_of_a_large_study_stays_small(tmp_path: Path) -> None:
    result = make_run(tmp_path / "run", latents=100, pairs=150, tokens=20)
    before = len(as_script_data(packed(report_document(gather(tmp_path / "run")))))
    words = iter(range(10**9))
    add_log_probs(tmp_path / "run", len(result.pairs), lambda: f" w{next(words) % 900}", tokens=500)
    document = report_document(gather(tmp_path / "run"))
    assert len(as_script_data(packed(document))) - before < 1e6
    first = document["completions"][0][0]
    assert len(first["tokens"]) == 80_000 // 300
    assert first["count"] == 500
    assert first["rest"].startswith(" w266 w267")


def test_a_card_shows_both_completions_token_by_token(
    browser: Any, made: tuple[Attribution, Path]
) -> None:
    result, run = made
    page_path = write_report(run)
    with opened(browser, page_path, fragment=f"#latent-{int(result.latents[0])}") as page:
        wait_for_card(page, int(result.latents[0]))
        numbers = page.inner_text("#card dl.numbers")
        assert "AUC, COMPLETION".lower() in numbers.lower()
        unfold(page)
        bars = page.locator("#card .effect")
        order = result.per_pair[:, 0].abs().argsort(descending=True).tolist()
        log_probs = gather(run).log_probs
        assert log_probs is not None
        both = log_probs[order[0]]
        answers = bars.first.locator(".answer")
        for answer, side in zip(answers.all(), (both.positive, both.negative), strict=True):
            assert answer.locator(".strip > span").all_inner_texts() == side.tokens
            assert "100 tokens" in answer.locator(".sum").inner_text()
        assert page.locator("#card .by-token .answers").count() == 3
        assert "the darker a token" in page.inner_text("#card .by-token .note")
        titles = page.locator("#ranking th button").all_inner_texts()
        assert any(title.startswith("AUC") for title in titles)


def test_whatever_tokens_hold_is_text_and_stays_in_its_place(browser: Any, tmp_path: Path) -> None:
    result = make_run(tmp_path / "run", texts=hostile_texts())
    texts = [*HOSTILE, HEBREW, "\n", "\t"]
    turn = iter(range(10**9))
    add_log_probs(
        tmp_path / "run", len(result.pairs), lambda: texts[next(turn) % len(texts)], tokens=20
    )
    path = write_report(tmp_path / "run")
    with opened(browser, path, fragment=f"#latent-{int(result.latents[0])}") as page:
        wait_for_card(page, int(result.latents[0]))
        unfold(page)
        assert page.evaluate("window.pwned") is None
        assert page.locator("script").count() == 2
        answer = page.locator("#card .effect .answer").first
        seen = answer.locator(".strip > span").all_inner_texts()
        assert set(seen) <= SHOWN | {HEBREW, "↵", "→"}
        lefts = [box.bounding_box() for box in answer.locator(".strip > span").all()]
        place = seen.index(HEBREW)
        before, here = lefts[place - 1], lefts[place]
        assert before is not None
        assert here is not None
        assert here["y"] > before["y"] or here["x"] >= before["x"]


def test_a_run_without_them_has_no_part_of_them(tmp_path: Path) -> None:
    make_run(tmp_path / "run")
    document = report_document(gather(tmp_path / "run"))
    assert document["completions"] == []
    assert not any("detection" in one for one in document["latents"])
