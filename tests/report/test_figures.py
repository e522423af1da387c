"""Figures show what was counted, as well-formed and reproducible files."""

from __future__ import annotations

import struct
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import pytest

from deltalens.report.figures import save_figure
from deltalens.trials import SweepResult
from deltalens.trials.rates import Tally
from deltalens.trials.result import (
    ACTIVATION,
    ATTRIBUTION,
    RANDOM,
    Arm,
    Candidate,
    Curve,
    Point,
)
from deltalens.trials.verdicts.shown.curves import figure_2
from deltalens.trials.verdicts.shown.points import all_marks, figure_1
from deltalens.visible.figures.style import inline, style
from helpers.finished_run import (
    make_run,
    make_sweep,
    plain_texts,
)

GROUP = "{http://www.w3.org/2000/svg}g"


def curve(latent: int, *shown: int) -> Curve:
    """Of 20 graded samples each, at strengths 0.1, 0.2 …; the last is chosen."""
    points = [
        Point(-0.1 * (at + 1), Tally(count, 20 - count, 1, 0, 0, 21))
        for at, count in enumerate(shown)
    ]
    return Curve(latent, 1, points, len(points) - 1)


@pytest.fixture
def counted() -> SweepResult:
    curves = [curve(1, 8, 2), curve(2, 9, 6), curve(3, 12, 13), curve(7, 9, 11), curve(8, 9, 4)]
    arm = Arm("away", "model", 2.0, 0.1, Tally(10, 10, 0, 0, 0, 20), curves)
    sets = {ATTRIBUTION: [1, 2], ACTIVATION: [3], RANDOM: [7, 8]}
    return SweepResult(
        {name: [Candidate(latent, 1) for latent in latents] for name, latents in sets.items()},
        {"away": arm},
        {},
    )


def test_points_means_and_band_are_the_hand_counted_changes(counted: SweepResult) -> None:
    with style("test"):
        (panel,) = figure_1(counted).axes
    points = {line.get_gid(): line.get_ydata()[0] for line in panel.lines if line.get_gid()}
    expected = {"attribution-1": -40, "attribution-2": -20, "activation-1": 15}
    expected |= {"random-1": 5, "random-2": -30}
    assert points == pytest.approx({f"point-away-{name}": y for name, y in expected.items()})
    means = [line.get_ydata()[0] for line in panel.lines if line.get_marker() == "x"]
    assert means == pytest.approx([-30, 15, -12.5])
    (band,) = panel.patches
    assert (band.get_y(), band.get_y() + band.get_height()) == pytest.approx((-30, 5))
    assert [text.get_text() for text in panel.texts] == ["1"]


def test_whiskers_are_the_wilson_interval_around_the_steered_rate(counted: SweepResult) -> None:
    with style("test"):
        (panel,) = figure_1(counted).axes
    first = next(
        line.get_ydata() for line in panel.lines if len(line.get_ydata()) == 2 and line.get_alpha()
    )
    # 2 of 20: (0.1 + z²/40 ± z √(0.0045 + z²/1600)) / (1 + z²/20), z² = 3.8415
    assert first == pytest.approx([100 * (0.0278665 - 0.5), 100 * (0.3010336 - 0.5)], abs=1e-4)


def test_curves_run_from_the_unsteered_model_and_the_band_spans_random_latents(
    counted: SweepResult,
) -> None:
    with style("test"):
        upper, lower = figure_2(counted).axes
    lines = {line.get_gid(): line for line in [*upper.lines, *lower.lines] if line.get_gid()}
    drawn = lines["curve-away-behaviour-1"]
    assert list(drawn.get_xdata()) == pytest.approx([0, 0.1, 0.2])
    assert list(drawn.get_ydata()) == pytest.approx([50, 40, 10])
    assert list(lines["curve-away-incoherence-2"].get_ydata()) == pytest.approx(
        [0, 100 / 21, 100 / 21]
    )
    assert lines["budget"].get_ydata()[0] == pytest.approx(10)
    (band,) = upper.collections
    corners = {(round(x, 6), round(y, 6)) for x, y in band.get_paths()[0].vertices}
    assert corners == {(0, 50), (0.1, 45), (0.2, 20), (0.2, 55)}


def test_every_set_has_a_column_of_its_own(counted: SweepResult) -> None:
    """Whatever it is called, and without Δ-attribution."""
    sets = {"push": [1, 2], "of my own": [3], "gradient cosine": [2], RANDOM: [7, 8]}
    candidates = {n: [Candidate(latent, 1) for latent in each] for n, each in sets.items()}
    found = SweepResult(candidates, counted.arms, {})
    with style("test"):
        (panel,) = figure_1(found).axes
        upper, _ = figure_2(found).axes
    ids = {line.get_gid(): line.get_ydata()[0] for line in panel.lines if line.get_gid()}
    expected = {"push-1": -40, "push-2": -20, "set2-1": 15, "cosine-1": -20}
    expected |= {"random-1": 5, "random-2": -30}
    assert ids == pytest.approx({f"point-away-{name}": y for name, y in expected.items()})
    assert [label.get_text() for label in panel.get_xticklabels()] == [
        *("push\n(2)", "of my own\n(1)", "gradient cosine\n(1)", "random latents\n(2)")
    ]
    assert [line.get_label() for line in upper.lines if line.get_gid()] == ["1", "2"]
    assert [mark.group for mark in all_marks(found)][:3] == ["push", "push", "of my own"]


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> SweepResult:
    run = tmp_path_factory.mktemp("figures") / "run"
    return make_sweep(make_run(run), plain_texts())


@pytest.mark.parametrize("figure", [figure_1, figure_2])
def test_files_are_whole_and_the_same_bytes_whatever_the_user_has_set(
    figure: object, result: SweepResult, tmp_path: Path
) -> None:
    draw = partial(figure, result)  # type: ignore[arg-type]
    svg = save_figure(tmp_path / "a", "figure", draw)
    with matplotlib.rc_context({"lines.linewidth": 9, "axes.facecolor": "red"}):
        before = dict(matplotlib.rcParams)
        assert save_figure(tmp_path / "b", "figure", draw) == svg
        assert dict(matplotlib.rcParams) == before
    for ending in ("svg", "png"):
        first, second = ((tmp_path / name / f"figure.{ending}").read_bytes() for name in "ab")
        assert first == second
    assert {path.name for path in (tmp_path / "a").iterdir()} == {"figure.svg", "figure.png"}
    width, height = struct.unpack(">II", first[16:24])
    assert width == round(2 * 4.4 * 160)
    assert 600 <= height <= 800
    assert len(first) < 200_000


def test_the_svg_is_xml_with_a_group_for_every_point_that_could_be_graded(
    result: SweepResult, tmp_path: Path
) -> None:
    svg = save_figure(tmp_path, "figure-1", partial(figure_1, result))
    found = [group.get("id") or "" for group in ElementTree.fromstring(svg).iter(GROUP)]
    points = [name for name in found if name.startswith("point-")]
    # 6 + 3 + 7 in two arms; of Δ-attribution one is never graded, one never within the budget
    assert len(points) == len(set(points)) == 2 * 14
    assert set(points) == {mark.gid for mark in all_marks(result)}
    ElementTree.fromstring(inline(svg))
    assert "<style" not in inline(svg)
    assert "http-equiv" not in svg
    assert "#1f2933" not in inline(svg)
    assert "currentColor" in inline(svg)


def test_without_a_random_latent_that_could_be_graded_there_is_no_band(
    counted: SweepResult,
) -> None:
    curves = [
        c if c.latent < 7 else Curve(c.latent, 1, [Point(-0.1, Tally(unparsable=3, samples=3))], 0)
        for c in counted.arms["away"].curves
    ]
    arm = Arm("away", "model", 2.0, 0.1, Tally(10, 10, 0, 0, 0, 20), curves)
    ungraded = SweepResult(counted.sets, {"away": arm}, {})
    with style("test"):
        assert not figure_1(ungraded).axes[0].patches
        assert len(figure_2(ungraded).axes) == 2
