"""The report in a real browser: it renders, sorts, filters and opens cards."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from deltalens.report import write_report
from deltalens.study import Attribution
from deltalens.trials import SweepResult
from deltalens.trials.result import ATTRIBUTION, RANDOM_SETS
from helpers.browser import (
    opened,
)
from helpers.finished_run import (
    add_everything,
    make_run,
)
from helpers.report_page import unfold, wait_for_card

Truth = dict[str, dict[int, Any]]


class Full:
    """A run with everything and its page."""

    def __init__(self, directory: Path) -> None:
        self.result: Attribution = make_run(directory / "full", behaviour="bad advice")
        self.sweep: SweepResult = add_everything(directory / "full", self.result)
        make_run(directory / "other", behaviour="flattery")
        self.path = write_report(directory / "full", beside=[directory / "other"])
        self.latents: list[int] = self.result.latents.tolist()


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Full:
    return Full(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("bare") / "run"
    make_run(run, pairs=1)
    return write_report(run)


@pytest.fixture
def page(browser: Any, full: Full) -> Iterator[Any]:
    with opened(browser, full.path) as page:
        yield page


def order(page: Any) -> list[int]:
    rows = page.locator("#ranking tbody tr")
    return [int(row.get_attribute("data-latent")) for row in rows.all()]


def titles(page: Any) -> list[str]:
    return page.locator("#ranking th button").all_inner_texts()


def test_it_renders(page: Any, full: Full) -> None:
    assert page.inner_text("h1") == "Which latents cause bad advice?"
    assert order(page) == full.latents
    assert page.locator(".findings li").count() == 8
    assert page.locator("figure svg").count() == 2
    assert page.locator("#settings details").count() == 3
    first = page.locator("#ranking tbody tr").first.locator("td").all_inner_texts()
    assert first[:2] == ["1", str(full.latents[0])]
    assert first[2].startswith("3.10 ± ")


def test_a_push_that_may_be_chance_is_marked(page: Any, full: Full) -> None:
    cells = page.locator("#ranking tbody tr td:nth-child(5)").all_inner_texts()
    result = full.result
    unsure = (result.push.abs() < 3 * result.push_stderr).tolist()
    assert 0 < sum(unsure) < len(unsure)
    assert [cell.endswith("?") for cell in cells] == unsure
    place = unsure.index(True)
    page.evaluate(f"location.hash = 'latent-{full.latents[place]}'")
    wait_for_card(page, full.latents[place])
    numbers = page.locator("dialog dl.numbers").inner_text().split("\n")
    at = {
        name: numbers[numbers.index(name) + 1] for name in ("family-wise p", "95% of ranks", "push")
    }
    assert float(at["family-wise p"]) == float(f"{float(result.p_value[place]):.2g}")
    assert at["95% of ranks"] == f"{place + 1}–{place + 3}"
    assert " ± " in at["push"]
    assert at["push"].endswith("?")


def beyond(sweep: SweepResult, latent: int) -> str | None:
    """Brute force over the sets, from the tallies."""
    candidate = next((c for c in sweep.sets[ATTRIBUTION] if c.latent == latent), None)
    if candidate is None or math.isnan(sweep.arms["away"].change(candidate)):
        return None
    said = []
    for direction, arm in sweep.arms.items():
        random = [arm.change(c) for name in RANDOM_SETS for c in sweep.sets[name]]
        change = arm.change(candidate)
        if change < min(random) if direction == "away" else change > max(random):
            said.append(direction)
    return "both" if len(said) == 2 else said[0] if said else "no"


def truth(full: Full) -> Truth:
    """Column → latent → value, None where there is none."""
    result, candidates = full.result, {c.latent: c for c in full.sweep.sets[ATTRIBUTION]}

    def change(direction: Any, latent: int) -> float | None:
        if latent not in candidates:
            return None
        value = full.sweep.arms[direction].change(candidates[latent])
        return None if math.isnan(value) else value

    def column(values: Callable[[int], Any]) -> dict[int, Any]:
        return {latent: values(at) for at, latent in enumerate(full.latents)}

    return {
        "rank": column(lambda at: at + 1),
        "latent": column(lambda at: full.latents[at]),
        "score": column(lambda at: float(result.scores[at])),
        "p": column(lambda at: float(result.p_value[at])),
        "push": column(lambda at: float(result.push[at])),
        "presence": column(lambda at: float(result.presence[at])),
        "promotes": column(lambda at: " ".join(t.text for t in result.lens[at].promotes)),
        "away": {latent: change("away", latent) for latent in full.latents},
        "toward": {latent: change("toward", latent) for latent in full.latents},
        "beyond": {latent: beyond(full.sweep, latent) for latent in full.latents},
    }


def test_every_column_sorts_both_ways(page: Any, full: Full) -> None:
    columns = truth(full)
    named = titles(page)
    assert {title.split()[0].strip(",") for title in named} == {*columns, "name"}
    for number, title in enumerate(named):
        if title == "name":
            continue
        values = columns[title.split()[0].strip(",")]
        known = [latent for latent in full.latents if values[latent] is not None]
        missing = [latent for latent in full.latents if values[latent] is None]
        button = page.locator("#ranking th button").nth(number)
        if title != "rank":  # which the page begins with
            button.click()
        expected = sorted(known, key=lambda latent: values[latent])
        assert order(page) == expected + missing, title
        assert page.locator("th[aria-sort=ascending]").inner_text() == title
        button.click()
        expected = sorted(known, key=lambda latent: values[latent], reverse=True)
        assert order(page) == expected + missing, title
        assert page.locator("th[aria-sort=descending]").inner_text() == title


def test_the_table_says_which_latents_go_beyond_random_ones(page: Any, full: Full) -> None:
    cells = page.locator("#ranking tbody tr td:last-child").all_inner_texts()
    expected = [beyond(full.sweep, latent) or "–" for latent in full.latents]
    assert len(set(expected)) >= 4
    assert cells == expected


def test_names_sort_and_a_column_sorts_by_keyboard(page: Any, full: Full) -> None:
    page.locator("#ranking th button", has_text="name").focus()
    page.keyboard.press("Enter")
    cells = page.locator("#ranking tbody tr td:nth-child(8)").all_inner_texts()
    assert [cell != "–" for cell in cells] == [True] * 4 + [False] * 8
    assert cells[:4] == sorted(cells[:4])
    page.keyboard.press("Space")
    cells = page.locator("#ranking tbody tr td:nth-child(8)").all_inner_texts()
    assert cells[:4] == sorted(cells[:4], reverse=True)


def test_search_filters_by_latent_token_and_name(page: Any, full: Full) -> None:
    token = full.result.lens[3].promotes[1].text
    name = page.locator("#ranking tbody tr").nth(2).locator("td").nth(7).inner_text()
    for text, at in ((str(full.latents[7]), 7), (token.upper(), 3), (name, 2)):
        page.fill("#ranking input", text)
        found = order(page)
        assert full.latents[at] in found
        assert len(found) < len(full.latents)
        assert f"{len(found)} of 12 latents" in page.inner_text("#count")
    page.fill("#ranking input", "no such thing")
    assert order(page) == []
    page.fill("#ranking input", "")
    assert order(page) == full.latents


def test_cards_open_by_click_keyboard_and_address(page: Any, browser: Any, full: Full) -> None:
    page.locator("#ranking tbody tr").nth(3).locator("td").nth(2).click()
    wait_for_card(page, full.latents[3])
    assert page.url.endswith(f"#latent-{full.latents[3]}")
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog[open]", state="detached")
    page.wait_for_function("location.hash === ''")
    page.locator("#ranking tbody a").nth(1).focus()
    page.keyboard.press("Enter")
    wait_for_card(page, full.latents[1])
    page.click("[aria-label='Next latent']")
    wait_for_card(page, full.latents[2])
    page.click("text=Close")
    assert page.locator("dialog[open]").count() == 0
    with opened(browser, full.path, fragment=f"#latent-{full.latents[5]}") as direct:
        wait_for_card(direct, full.latents[5])
    with opened(browser, full.path, fragment="#latent-999999") as unknown:
        assert unknown.locator("dialog[open]").count() == 0


def test_a_card_holds_all_evidence(browser: Any, full: Full) -> None:
    with opened(browser, full.path, fragment=f"#latent-{full.latents[0]}") as page:
        wait_for_card(page, full.latents[0])
        heads = page.locator("#card h3").all_inner_texts()
        assert heads == [
            "Nearest unembedding tokens",
            "Interpretation",
            "Steering",
            "Sample completions",
            "Where in the prompt",
            "Attribution per pair",
            "Ablation",
            "Examples",
        ]
        unfold(page)
        assert page.locator("#card .names").count() == 2
        assert page.locator("#card .chart").count() == 2
        assert page.locator("#card .by-pair .lane").count() == 6
        assert page.locator("#card .by-token .strip").count() == 3
        assert page.locator("#card .examples .window").count() == 4
        assert page.locator("#card .completions .answer").count() == 2 * 4 * 2


def test_a_pairs_bar_opens_its_texts(browser: Any, full: Full) -> None:
    with opened(browser, full.path, fragment=f"#latent-{full.latents[0]}") as page:
        wait_for_card(page, full.latents[0])
        bars = page.locator("#card .effect")
        order = full.result.per_pair[:, 0].abs().argsort(descending=True).tolist()
        assert [int(bar.inner_text().split()[0]) for bar in bars.all()] == order
        bars.nth(1).locator("summary").focus()
        page.keyboard.press("Enter")
        pair = full.result.pairs[order[1]]
        shown = bars.nth(1).locator(".answer .text").all_inner_texts()
        assert shown == [pair.positive, pair.negative]


def test_effects_are_coloured_by_sign_and_add_up_to_the_pairs_value(
    browser: Any, full: Full
) -> None:
    assert full.result.token_effects is not None
    with opened(browser, full.path, fragment=f"#latent-{full.latents[0]}") as page:
        wait_for_card(page, full.latents[0])
        first = page.locator("#card .by-token .window").first
        pair = int(first.locator(".label").first.inner_text().split()[1])
        assert pair == int(full.result.per_pair[:, 0].abs().argmax())
        spans = first.locator(".strip span").all()
        values = [float(s.get_attribute("title").replace("−", "-")) for s in spans]
        assert sum(values) / len(values) == pytest.approx(
            float(full.result.per_pair[pair, 0]), abs=0.005
        )
        assert [s.inner_text() for s in spans] == full.result.token_effects.tokens[pair]
        for span, value in zip(spans, values, strict=True):
            colour = span.evaluate("e => getComputedStyle(e).backgroundColor")
            expected = "213, 94, 0" if value > 0 else "0, 114, 178"
            assert expected in colour or (colour == "rgba(0, 0, 0, 0)" and abs(value) < 0.1)
            if abs(value) > 0.1:
                line = span.evaluate("e => getComputedStyle(e).textDecorationLine")
                assert (line == "underline") == (value < 0)


def test_a_latent_that_is_never_coherent_says_so_and_shows_no_completions(
    browser: Any, full: Full
) -> None:
    with opened(browser, full.path, fragment=f"#latent-{full.latents[4]}") as page:
        wait_for_card(page, full.latents[4])
        said = page.locator("#card .steering p").all_inner_texts()
        none = "No strength tried stays within the incoherence budget."
        assert all(sentence.startswith(none) for sentence in said[:2])
        assert page.locator("#card .completions").count() == 0


def test_points_show_their_latent_and_open_its_card(page: Any, full: Full) -> None:
    points = page.locator("[id^=point-]")
    assert points.count() == 2 * 14  # one is never graded, one never within the budget
    for gid, latent in (
        ("point-away-attribution-2", full.latents[1]),
        ("point-toward-activation-2", 901),
        ("point-away-random-7", 922),
    ):
        page.locator(f"#{gid} use").hover(force=True)
        assert f"Latent {latent}\n" in page.inner_text("#tip")
    page.mouse.move(0, 0)
    assert page.locator("#tip").is_hidden()
    page.locator("#point-toward-attribution-3 use").click()
    wait_for_card(page, full.latents[2])


def test_points_are_reached_by_keyboard(page: Any, full: Full) -> None:
    assert page.locator("[id^=point-][tabindex='0']").count() == 1
    page.locator("#point-away-attribution-1").focus()
    assert f"Latent {full.latents[0]}\n" in page.inner_text("#tip")
    page.keyboard.press("ArrowRight")
    assert f"Latent {full.latents[1]}\n" in page.inner_text("#tip")
    page.keyboard.press("Enter")
    wait_for_card(page, full.latents[1])


def brightness(page: Any, selector: str, what: str) -> float:
    colour = page.eval_on_selector(selector, f"e => getComputedStyle(e).{what}")
    return sum(map(int, colour[colour.index("(") + 1 : -1].split(",")[:3])) / 3


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_follows_the_readers_scheme_until_told_otherwise(
    scheme: Any, browser: Any, full: Full
) -> None:
    with opened(browser, full.path, color_scheme=scheme) as page:
        for dark in (scheme == "dark", scheme != "dark"):
            assert (brightness(page, "body", "backgroundColor") < 80) == dark
            assert (brightness(page, "figure svg", "color") > 170) == dark
            assert (brightness(page, "td", "color") > 170) == dark
            page.click("#theme")


def test_it_prints_dark_on_light_without_its_controls(browser: Any, full: Full) -> None:
    with opened(browser, full.path, color_scheme="dark") as page:
        page.emulate_media(media="print", color_scheme="dark")
        assert brightness(page, "body", "backgroundColor") > 250
        assert brightness(page, "figure svg", "color") < 80
        for control in ("#theme", "#ranking input"):
            assert not page.locator(control).is_visible()
        assert page.locator("#settings table").first.is_visible()


@pytest.mark.parametrize("width", [320, 390])
def test_it_fits_a_phone(width: int, browser: Any, full: Full) -> None:
    viewport = {"width": width, "height": 800}
    with opened(browser, full.path, viewport=viewport, is_mobile=True, has_touch=True) as page:
        unfold(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.locator("#ranking tbody a").first.tap()
        page.wait_for_selector("dialog[open]")
        unfold(page)
        assert page.eval_on_selector("#card", "e => e.scrollWidth - e.clientWidth") <= 0
        assert page.eval_on_selector("#card", "e => e.getBoundingClientRect().width") <= width


def test_a_study_beside_is_compared(page: Any, full: Full) -> None:
    said = page.inner_text("#beside")
    assert "flattery" in said
    assert f"Latent {full.latents[0]} comes first in both." in said


def test_what_a_run_lacks_is_not_on_its_page(bare: Path, browser: Any) -> None:
    with opened(browser, bare) as page:
        assert [t.split()[0] for t in titles(page)] == [
            *("rank", "latent", "score", "push", "presence", "promotes")
        ]
        assert "NaN" not in page.inner_text("body")
        assert "±" not in page.inner_text("#ranking tbody")
        assert page.locator("figure").count() == 0
        assert not page.locator("#beside").is_visible()
        assert not page.locator("#figures").is_visible()
        page.locator("#ranking tbody a").first.click()
        page.wait_for_selector("dialog[open] .by-pair")
        assert page.locator("#card h3").all_inner_texts() == [
            "Nearest unembedding tokens",
            "Where in the prompt",
            "Attribution per pair",
        ]
    assert {path.name for path in bare.parent.iterdir()} & {"figures"} == set()


def test_no_other_script_can_run(full: Full, browser: Any) -> None:
    session = browser.new_context()
    page, said = session.new_page(), []
    page.on("console", lambda message: said.append(message.text))
    page.goto(full.path.resolve().as_uri())
    page.evaluate(
        "const one = document.createElement('script'); one.textContent = 'window.pwned = 1';"
        "document.body.append(one); document.body.insertAdjacentHTML('beforeend',"
        "'<img src=x onerror=window.pwned=1><a href=javascript:window.pwned=1 id=bad>x</a>');"
        "document.getElementById('bad').click()"
    )
    page.wait_for_timeout(200)
    assert page.evaluate("window.pwned") is None
    assert len(said) >= 3
    assert all("Content Security Policy" in text for text in said)
    session.close()
