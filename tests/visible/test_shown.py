"""Results in notebooks: harmless whatever the texts are, short, and of the results' own values."""

from __future__ import annotations

import csv
import io
import math
import re
import sys
import unicodedata
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch

import deltalens
from deltalens.checkpoints.attributed import Attributed
from deltalens.checkpoints.course import Checkpoint, Course, State
from deltalens.checkpoints.result import CheckpointComparison
from deltalens.checkpoints.table import as_csv
from deltalens.engine.cost.planner import Plan
from deltalens.engine.cost.roofs import assumed_roofs
from deltalens.lm import Pair, Site
from deltalens.study.detection.result import read_detection
from deltalens.study.sae_check import SAECheck
from deltalens.study.sae_check.alternatives import Alternative
from deltalens.study.sae_check.rows import RowSummary
from deltalens.visible.view import LONGEST_CELL, ROWS, Marked, Table, View
from helpers.finished_run import add_detection, add_everything, hostile_texts, make_run, plain_texts

EVIL = "<script>alert(1)</script><img src=http://a.b/c.png>\x1b[31m\u202egnp\u2066&amp;\"'\udc80"
TAGS = {"div", "p", "b", "span", "table", "thead", "tbody", "tr", "th", "td"}
STYLES = re.compile(
    r"text-align:(left|right)|white-space:pre-wrap"
    r"|background-color:rgba\((0,114,178|213,94,0),0\.[0-5]\d\)"
)
UNSEEN = {"Cc", "Cf", "Co", "Cs", "Zl", "Zp"}


class Fragment(HTMLParser):
    """What a browser would make of a fragment; fails at anything but plain tables and text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.rows: list[list[str]] = []
        self.pieces: list[tuple[str, str, str]] = []  # text, style and title of each span
        self._open: list[str] = []
        html.encode("utf-8")
        assert not {unicodedata.category(letter) for letter in html} & UNSEEN
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in TAGS
        assert set(dict(attrs)) <= {"style", "scope", "title"}
        assert STYLES.fullmatch(dict(attrs).get("style") or "text-align:left")
        assert re.fullmatch(r"[+-][0-9.e+-]+", dict(attrs).get("title") or "+1")
        self._open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag == "p":
            self.lines.append("")
        if tag == "span":
            self.pieces.append(("", *(value or "" for _, value in attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open[-1] in ("td", "th"):
            self.rows[-1][-1] += data
        elif self._open[-1] == "span":
            text, *attributes = self.pieces[-1]
            self.pieces[-1] = (text + data, *attributes)
        else:
            self.lines[-1] += data

    def handle_comment(self, data: str) -> None:
        raise AssertionError(data)


def fragment(shown: Any) -> Fragment:
    return Fragment(shown._repr_html_())


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, Any, Any]:
    """A run of hostile texts, with examples and a sweep."""
    run = tmp_path_factory.mktemp("shown") / "run"
    result = make_run(run, texts=hostile_texts())
    return run, result, add_everything(run, result, hostile_texts())


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> tuple[Path, Any, Any]:
    run = tmp_path_factory.mktemp("plain") / "run"
    result = make_run(run, texts=plain_texts())
    return run, result, add_everything(run, result, plain_texts())


def checkpoints(name: str = EVIL) -> CheckpointComparison:
    shown = [Checkpoint(f"{n}{name}", float(n), name, name, 5, 9, None, {}, None) for n in range(8)]
    courses = [
        Course(
            latent,
            [name, "=1+1"],
            [State(Attributed(rank=n + 1, score=latent / 7), None, {}, None) for n in range(8)],
        )
        for latent in range(40, 40 + 2 * ROWS)
    ]
    return CheckpointComparison(name, "abc", 500, shown, courses, [name])


def planned() -> Plan:
    return deltalens.plan(1000, 4096, 64, roofs=assumed_roofs("cpu"))


def checked(name: str = EVIL) -> SAECheck:
    others = [Alternative(f"{name} {n}", 0.9 - n / 100) for n in range(ROWS + 3)]
    site = Site("hook_resid_post", 0, 4, 1, name, torch.nn.Identity())
    return SAECheck(site, RowSummary(1, 2, 3, [], [], None), None, 0.5, others, 0, [name])


def surveyed(result: Any, name: str = EVIL) -> deltalens.Survey:
    keys = [(name, f"blocks.{layer}.hook_resid_post", name) for layer in range(3)]
    return deltalens.Survey(Path("."), dict.fromkeys(keys, result), dict.fromkeys(keys, "run"))


def differing() -> deltalens.ActivationDifference:
    values = [torch.linspace(n, n + 1, 40, dtype=torch.float64) for n in range(6)]
    latents = values[0].topk(2 * ROWS).indices
    return deltalens.ActivationDifference(latents, *values, prompts=7, metadata={})


def detected(run: Path, result: Any) -> deltalens.Detection:
    add_detection(run, result)
    found = read_detection(run)
    assert found is not None
    return found


def test_hostile_texts_do_nothing(made):
    run, result, sweep = made
    compared = deltalens.compare(result, result, names=(EVIL, EVIL))
    views = [result, sweep, compared, checkpoints(), checked(), deltalens.read_examples(run)]
    views += [surveyed(result), differing(), detected(run, result)]
    views += [result.show(int(latent)) for latent in result.latents]
    for shown in views:
        fragment(shown)
    for shown in views:
        text = repr(shown)
        if not isinstance(shown, View):
            bundle = shown._repr_mimebundle_()
            assert bundle["text/html"] == shown._repr_html_()
            text = bundle["text/plain"]
        assert all(line.isprintable() for line in text.split("\n"))


def test_text_is_shown_and_not_lost():
    found = fragment(View(EVIL, [EVIL], [Table(["x"], [[EVIL]], 1, left=["x"])]))
    shown = EVIL.replace("\x1b", "\\x1b").replace("\u202e", "\\u202e")
    shown = shown.replace("\u2066", "\\u2066").replace("\udc80", "\\udc80")
    assert found.lines == [shown, shown]
    assert found.rows == [["x"], [shown]]


def test_long_texts_and_tables_are_cut_and_say_so():
    found = fragment(View("t", (), [Table(["x"], [["y" * 10**6]] * 3, 4321)]))
    assert [len(row[0]) for row in found.rows] == [1] + [LONGEST_CELL] * 3
    assert found.rows[1][0].endswith("…")
    assert found.lines[-1] == "the first 3 of 4,321 rows"
    assert fragment(View("t", (), [Table(["x"], [["y"]], 1)])).lines == ["t"]


def test_a_ranking_shows_its_own_values(plain):
    _, result, _ = plain
    found = fragment(result)
    assert len(found.rows) == 1 + ROWS
    assert found.lines[-1] == f"the first {ROWS} of {len(result.latents)} rows"
    for place, row in enumerate(found.rows[1:]):
        assert row[:2] == [str(place + 1), str(int(result.latents[place]))]
        values = (result.scores, result.p_value, result.push, result.presence)
        for text, column in zip(row[2:6], values, strict=True):
            assert float(text.rstrip("?")) == pytest.approx(float(column[place]), rel=0.051)
        assert row[4].endswith("?") == bool(result.sign_unsure[place])
        assert row[6].split(" ")[0] == result.lens[place].promotes[0].text.split(" ")[0]


def test_one_latent_shows_the_pairs_of_the_largest_differences(plain):
    _, result, _ = plain
    place = 3
    latent = int(result.latents[place])
    found = fragment(result.show(latent))
    values = result.per_pair[:, place].tolist()
    order = sorted(range(len(values)), key=lambda at: -abs(values[at]))[:5]
    assert [row[0] for row in found.rows[1:]] == [str(at + 1) for at in order]
    assert [row[3:] for row in found.rows[1:]] == [
        [result.pairs[at].positive, result.pairs[at].negative] for at in order
    ]
    assert found.lines[0] == f"Latent {latent}, rank 4 of {len(result.latents)}, at {result.site}"
    assert f"{float(result.scores[place]):+.2e}" in found.lines[1]
    assert f"{float(result.push[place]):+.2e}" in found.lines[2]
    assert result.lens[place].suppresses[2].text in found.lines[4]
    assert repr(result.show(latent)).split("\n")[0] == found.lines[0]


def test_one_latent_shows_the_tokens_that_its_score_comes_from(plain):
    _, result, _ = plain
    place = 3
    found = fragment(result.show(int(result.latents[place])))
    pairs = result.per_pair[:, place].abs().argsort(descending=True)[:3].tolist()
    effects = result.token_effects
    expected = [
        (text, value)
        for pair in pairs
        for text, value in zip(
            effects.tokens[pair], effects.values[pair][:, place].tolist(), strict=True
        )
    ]
    assert [text for text, _, _ in found.pieces] == [text for text, _ in expected]
    for (_, style, title), (_, value) in zip(found.pieces, expected, strict=True):
        assert float(title) == pytest.approx(value, rel=0.006)
        assert ("0,114,178" in style) == (value > 0)
    captions = [f"the counted tokens of pair {pair + 1}, by δ(C) − δ(C′):" for pair in pairs]
    assert [line for line in found.lines if line.startswith("the counted")] == captions


def test_the_largest_value_has_the_strongest_colour_and_its_number_in_text():
    shown = View("t", texts=[Marked("x", [("a", 0.5), (" b", -1.0), ("c", 0.0), ("\u202e", 0.48)])])
    found = fragment(shown)
    assert [style[-5:-1] for _, style, _ in found.pieces] == ["0.25", "0.50", "0.00", "0.24"]
    assert repr(shown).split("\n") == ["t", "x", "a[+5.0e-01] b[-1.0e+00]c\\u202e"]
    assert fragment(View("t", texts=[Marked("x", [("a", 0.0)])])).pieces[0][1].endswith("0.00)")


def test_long_prompts_are_cut_around_the_largest_effect(tmp_path):
    result = make_run(tmp_path / "run", tokens=400)
    found = fragment(result.show(int(result.latents[0])))
    assert len(found.pieces) == 3 * 120
    caption = next(line for line in found.lines if line.startswith("120 of the 400 counted tokens"))
    pair = int(caption.split("pair ")[1].split(",")[0]) - 1
    peak = int(result.token_effects.values[pair][:, 0].abs().argmax())
    assert result.token_effects.tokens[pair][peak] in [text for text, _, _ in found.pieces[:120]]


def test_tokens_of_one_completion_alone_are_marked_as_its_own(plain):
    result = plain[1]
    effects = replace(result.token_effects, own=[(2, 3)] * len(result.pairs))
    found = fragment(replace(result, token_effects=effects).show(int(result.latents[0])))
    marked = [at for at, (text, _, _) in enumerate(found.pieces[:9]) if text.startswith("[")]
    assert marked == [4, 6]
    assert [found.pieces[at][0][:4] for at in marked] == ["[C] ", "[C′]"]


def test_latents_beyond_those_with_tokens_have_none(plain):
    result = plain[1]
    few = replace(result.token_effects, values=[v[:, :4] for v in result.token_effects.values])
    result = replace(result, token_effects=few)
    assert fragment(result.show(int(result.latents[3]))).pieces
    assert not fragment(result.show(int(result.latents[4]))).pieces
    assert not fragment(replace(result, token_effects=None).show(int(result.latents[0]))).pieces


def test_surveys_detections_and_activations_show_their_own_values(plain):
    run, result, _ = plain
    found = fragment(surveyed(result, "advice"))
    assert found.lines[0] == "Survey of 3 studies"
    assert found.rows[2][:6] == [
        *("advice", "blocks.1.hook_resid_post", "advice", "6"),
        *(str(result.stand_out), str(int(result.latents[0]))),
    ]
    told = detected(run, result)
    found = fragment(told)
    assert found.rows[1][:4] == ["", "mean difference", "completion", "mean"]
    assert found.rows[5] == [
        *("1", str(int(result.latents[0])), "completion", "mean"),
        f"{told.rows[4].auc:.2f} [{told.rows[4].low:.2f}, {told.rows[4].high:.2f}]",
    ]
    difference = differing()
    found = fragment(difference)
    assert found.rows[1][:2] == ["1", str(int(difference.latents[0]))]
    assert float(found.rows[1][2]) == pytest.approx(float(difference.difference.max()), rel=0.01)
    assert found.lines[-1] == f"the first {ROWS} of {2 * ROWS} rows"


def test_a_latent_that_is_not_ranked_is_refused(plain):
    with pytest.raises(deltalens.InputError, match="latent 100000 is not among the 12"):
        plain[1].show(100000)


def test_token_ids_and_an_untested_single_pair_show(tmp_path):
    result = make_run(tmp_path / "run", pairs=1)
    result = replace(result, pairs=[Pair([1, 2], [3, 4], [5])], lens=[])
    found = fragment(result.show(int(result.latents[0])))
    assert found.rows[1][2:] == ["[1, 2]", "[3, 4]", "[5]"]
    assert "p –" in found.lines[1]
    assert fragment(result).rows[1][3] == "–"


def test_a_sweep_shows_its_own_values(plain):
    _, _, sweep = plain
    found = fragment(sweep)
    listed = [(name, item) for name, items in sweep.sets.items() for item in items]
    assert found.lines[-1] == f"the first {ROWS} of {len(listed)} rows"
    for row, (name, item) in zip(found.rows[1:], listed, strict=False):
        assert row[:2] == [name, item.name]
        for at, arm in enumerate(sweep.arms.values()):
            point = arm.chosen(item)
            cells = row[2 + 3 * at : 5 + 3 * at]
            if point is None:
                assert cells == ["none within budget", "–", "–"]
            else:
                assert cells[0] == str(point.tally.behaviour)
                change = arm.change(item)
                assert cells[1] == ("–" if math.isnan(change) else f"{100 * change:+.0f}")
                assert float(cells[2]) == pytest.approx(point.strength, rel=0.051)


def test_comparisons_show_their_own_values(plain):
    _, result, _ = plain
    both = fragment(deltalens.compare(result, result, names=("one", "two")))
    assert [row[:3] for row in both.rows[1:]] == [
        [str(int(latent)), str(n), str(n)] for n, latent in enumerate(result.latents[:ROWS], 1)
    ]
    found = fragment(checkpoints("step"))
    assert found.rows[0] == ["latent", *(f"{n + 1}: {n}step" for n in range(6)), "promotes"]
    assert found.rows[1] == ["40", *(f"{40 / 7:+.2e} ({n + 1})" for n in range(6)), "step =1+1"]
    assert found.lines[1] == "score (rank) of each latent at the first 6 of 8 checkpoints"
    assert found.lines[-1] == f"the first {ROWS} of {2 * ROWS} rows"


def test_a_plan_a_check_and_examples_show_their_own_values(plain):
    chosen = planned()
    found = fragment(chosen)
    assert [row[0].removesuffix(" ←") for row in found.rows[1:]] == [c.form for c in chosen.costs]
    assert [row[1] for row in found.rows[1:] if row[0].endswith("←")] == [chosen.impl]
    check = fragment(checked("step"))
    assert check.lines[1] == "warning: step"
    assert check.rows[1] == ["step 0", "0.9000"]
    run, result, _ = plain
    lines = deltalens.read_examples(run)
    shown = fragment(lines)
    assert [int(row[0]) for row in shown.rows[1:]] == result.latents[:ROWS].tolist()
    assert shown.rows[1][1:3] == ["3.000%", "2"]
    assert [line["latent"] for line in lines] == result.latents.tolist()  # nothing was used up


def test_without_pandas_one_line_says_what_to_install(plain, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    for shown in (plain[1], plain[2], checkpoints(), planned(), differing(), surveyed(plain[1])):
        with pytest.raises(deltalens.InputError, match="pip install pandas"):
            shown.to_pandas()


def test_frames_hold_what_the_csv_files_hold(plain):
    run, result, sweep = plain
    frame, rows = result.to_pandas(), csv_rows((run / "attribution.csv").read_text("utf-8"))
    assert list(frame.columns) == list(rows[0])
    for name in set(rows[0]) - {"sign_unsure"}:
        assert frame[name].tolist() == pytest.approx([float(r[name]) for r in rows], nan_ok=True)
    assert [str(one).lower() for one in frame["sign_unsure"]] == [r["sign_unsure"] for r in rows]
    found = checkpoints("step")
    frame, rows = found.to_pandas(), csv_rows(as_csv(found))
    assert list(frame.columns) == list(rows[0])
    assert frame["score"].tolist() == [float(row["score"]) for row in rows]
    assert frame["promotes"].tolist() == ["step =1+1"] * len(rows)
    points = sweep.to_pandas()
    assert len(points) == sum(len(c.points) for arm in sweep.arms.values() for c in arm.curves)
    for arm in sweep.arms.values():
        for curve in arm.curves:
            of = points[(points.direction == arm.direction) & (points.latent == curve.latent)]
            of = of[of.sign == curve.sign]
            assert of.strength.tolist() == [point.strength for point in curve.points]
            assert of.shown.tolist() == [point.tally.shown for point in curve.points]
            assert [n for n, one in enumerate(of.chosen) if one] == (
                [] if curve.chosen is None else [curve.chosen]
            )


def test_other_frames_hold_the_objects_values(plain):
    run, result, _ = plain
    compared = deltalens.compare(result, result).to_pandas()
    assert compared.rank_b.tolist() == list(range(1, len(result.latents) + 1))
    assert compared.score_a.tolist() == result.scores.tolist()
    chosen = planned()
    assert chosen.to_pandas().seconds.tolist() == [cost.seconds for cost in chosen.costs]
    assert checked().to_pandas().explained.tolist() == [0.9 - n / 100 for n in range(ROWS + 3)]
    examples = deltalens.read_examples(run).to_pandas()
    assert examples.latent.tolist() == result.latents.tolist()
    assert set(examples["max"]) == {2.0}
    studies = surveyed(result, "advice").to_pandas()
    assert len(studies) == 3 * len(result.latents)
    assert studies.site.unique().tolist() == [f"blocks.{n}.hook_resid_post" for n in range(3)]
    assert studies[studies.site == "blocks.2.hook_resid_post"].score.tolist() == (
        result.scores.tolist()
    )
    difference = differing()
    assert difference.to_pandas().difference.tolist() == (
        difference.difference[difference.latents].tolist()
    )
    told = detected(run, result)
    assert told.to_pandas().auc.tolist() == [row.auc for row in told.rows]


def csv_rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))
