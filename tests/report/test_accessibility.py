"""Nothing that axe finds serious, on any page that is written, in both themes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from deltalens.report import write_report, write_survey_report
from deltalens.study import Attribution
from deltalens.study.survey.directory import Contents, Place
from helpers.browser import opened
from helpers.finished_run import add_detection, add_everything, add_log_probs, make_run, plain_texts
from helpers.report_page import unfold, wait_for_card

SCHEMES = ["light", "dark"]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    run = tmp_path_factory.mktemp("axe") / "run"
    result = make_run(run, behaviour="bad advice")
    add_everything(run, result)
    add_detection(run, result)
    add_log_probs(run, len(result.pairs), plain_texts(), tokens=100)
    other = run.parent / "other"
    make_run(other, behaviour="flattery")
    page = write_report(run, beside=[other], neuronpedia="gpt2-small/1-res_post_32k-oai")
    return page, int(result.latents[0])


def serious(page: Any) -> list[str]:
    """What axe finds serious or critical: its rule and the elements."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    found = axe.Axe().run(page).response["violations"]
    return [
        f"{one['id']}: {node['html'][:160]} {node['any'][:1]}"
        for one in found
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"][:3]
    ]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_report(scheme: Any, browser: Any, report: tuple[Path, int]) -> None:
    path, latent = report
    with opened(browser, path, color_scheme=scheme) as page:
        unfold(page)
        assert serious(page) == []
        page.evaluate(f"location.hash = 'latent-{latent}'")
        wait_for_card(page, latent)
        unfold(page)
        assert serious(page) == []
        page.keyboard.press("Escape")
        page.keyboard.press("?")
        assert serious(page) == []


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_surveys_page(scheme: Any, browser: Any, survey: Path) -> None:
    with opened(browser, survey, color_scheme=scheme) as page:
        unfold(page)
        assert serious(page) == []


@pytest.fixture(scope="module")
def survey(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("axe") / "survey"
    place = Place("blocks.3.hook_resid_post", None, "site-3", {})
    tested = {"flips": 1001, "smallest_possible": 0.001, "smallest": 0.001}
    for name in ("bad advice", "flattery"):
        make_run(
            directory / name / place.directory,
            behaviour=name,
            site={"name": place.site, "layer": 3},
            certified=True,
            significance={**tested, "stand_out_of_all": 1, "sentence": "said"},
        )
    Contents({}, "model", ["bad advice", "flattery"], [place]).save(directory)
    return write_survey_report(directory)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_examples_page(scheme: Any, browser: Any, report: Any, tmp_path: Path) -> None:
    from deltalens.examples.html import html_page
    from deltalens.examples.store import read_examples

    lines = [line for line in read_examples(report[0].parent) if "examples" in line]
    (tmp_path / "examples.html").write_text("".join(html_page(lines, "Examples")), encoding="utf-8")
    with opened(browser, tmp_path / "examples.html", color_scheme=scheme) as page:
        assert page.locator("section").count() == 12
        assert serious(page) == []


@pytest.mark.parametrize("scheme", SCHEMES)
def test_what_results_show_in_a_notebook(
    scheme: Any, browser: Any, report: Any, tmp_path: Path
) -> None:
    result = Attribution.load(report[0].parent)
    views = result._repr_html_() + result.show(report[1]).html()
    head = "<!doctype html><html lang=en><meta charset=utf-8><title>Cell</title>"
    look = "<style>:root{color-scheme:light dark}body{background:Canvas;color:CanvasText}</style>"
    text = f"{head}{look}<main><h1>Cell</h1>{views}</main></html>"
    (tmp_path / "cell.html").write_text(text, encoding="utf-8")
    with opened(browser, tmp_path / "cell.html", color_scheme=scheme) as page:
        assert serious(page) == []
