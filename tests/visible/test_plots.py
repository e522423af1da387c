"""Figures of results: of their own values, inert whatever texts are in them, and in no window."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib
import pytest
import torch

import deltalens
from deltalens.study.comparison.figure import NAMED
from deltalens.study.ranking.figure import SHOWN
from deltalens.trials.result import ATTRIBUTION, SweepResult
from deltalens.visible import visible
from helpers.finished_run import HOSTILE, hostile_texts, make_run, make_sweep, plain_texts

SVG = "{http://www.w3.org/2000/svg}"
TAGS = {f"{SVG}{name}" for name in ("svg", "defs", "g", "path", "use", "text", "clipPath", "rect")}
STRANGE = [*HOSTILE, r"$\frac$", "日本語 🙂", "\udc80"]


def drawn(figure: Any) -> ElementTree.Element:
    """The fragment as a page would have it; fails at anything but shapes and text."""
    html = figure._repr_html_()
    html.encode("utf-8")
    root = ElementTree.fromstring(html)
    for element in root.iter():
        assert element.tag in TAGS
        assert not [name for name in element.attrib if name.startswith("on")]
        links = [value for name, value in element.attrib.items() if name.endswith("href")]
        assert all(link.startswith("#") for link in links)
    assert "url(" not in html.replace("url(#", "")
    return root


def texts(root: ElementTree.Element) -> list[str]:
    return ["".join(element.itertext()) for element in root.iter(f"{SVG}text")]


@pytest.fixture(scope="module")
def ranked(tmp_path_factory) -> Any:
    return make_run(tmp_path_factory.mktemp("plots") / "run", latents=SHOWN + 5)


@pytest.fixture(scope="module")
def swept(ranked) -> SweepResult:
    return make_sweep(ranked, plain_texts())


def test_a_ranking_is_drawn_in_its_order_with_its_own_values(ranked):
    (axes,) = ranked.plot().axes
    points = [line for line in axes.lines if line.get_gid()]
    assert [line.get_gid() for line in points] == [f"point-{n}" for n in ranked.latents[:SHOWN]]
    assert [line.get_xdata()[0] for line in points] == ranked.scores[:SHOWN].tolist()
    assert axes.yaxis_inverted()
    assert [text.get_text() for text in axes.get_yticklabels()] == list(
        map(str, ranked.latents[:SHOWN].tolist())
    )
    bars = [line for line in axes.lines if len(line.get_xdata()) == 2][1:]
    widths = torch.tensor([line.get_xdata()[1] - line.get_xdata()[0] for line in bars])
    assert torch.allclose(widths.double(), 2 * ranked.stderr[:SHOWN])
    filled = [line.get_fillstyle() == "full" for line in points]
    assert filled == (ranked.p_value[:SHOWN] <= 0.05).tolist()


def test_the_sign_of_push_is_the_colour(ranked):
    push = torch.tensor([1.0, -1.0, 1.0] + [1.0] * (len(ranked.latents) - 3)).double()
    unsure = torch.tensor([0.1, 0.1, 0.9] + [0.1] * (len(push) - 3)).double()
    figure = replace(ranked, push=push, push_stderr=unsure).plot()
    points = [line for line in figure.axes[0].lines if line.get_gid()]
    colours = [line.get_color() for line in points[:4]]
    assert len(set(colours[:3])) == 3
    assert colours[3] == colours[0]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "adding it raises log p(C) over log p(C′)",
        "adding it lowers it",
        "either may be chance",
    ]


def test_a_single_pair_has_no_errors_and_is_drawn(tmp_path):
    drawn(make_run(tmp_path / "run", pairs=1).plot())


def test_a_sweep_is_drawn_as_its_report_draws_it(swept):
    figure = swept.plot()
    assert [axes.get_title(loc="left").split("\n")[0] for axes in figure.axes] == [
        "Studied model, steered away",
        "Reference model, steered toward",
    ]
    arm, first = swept.arms["away"], swept.sets[ATTRIBUTION][0]
    points = {line.get_gid(): line for axes in figure.axes for line in axes.lines}
    change = points["point-away-attribution-1"].get_ydata()[0]
    assert change == pytest.approx(100 * arm.change(first))
    drawn(figure)
    curves = swept.plot_strengths()
    assert [line.get_gid() for line in curves.axes[0].lines][:1] == [
        f"curve-away-behaviour-{first.latent}"
    ]
    drawn(curves)


def test_names_of_sets_are_text_and_nothing_else(swept):
    sets = dict.fromkeys(STRANGE, swept.sets[ATTRIBUTION][:1])
    found = texts(drawn(replace(swept, sets=sets, verdicts={}).plot()))
    for name in STRANGE:
        assert [text for text in found if text.endswith(visible(name)[-20:])], name


def test_hostile_runs_are_drawn(tmp_path):
    result = make_run(tmp_path / "run", texts=hostile_texts())
    drawn(result.plot())
    drawn(make_sweep(result, hostile_texts()).plot())


def test_without_suspects_there_are_no_curves(swept):
    controls = replace(swept, sets={"random": swept.sets["random"]}, verdicts={})
    with pytest.raises(deltalens.InputError, match="no set of suspects"):
        controls.plot_strengths()
    drawn(controls.plot())


@pytest.fixture(scope="module")
def compared(tmp_path_factory) -> Any:
    """Two studies whose scores are not in one order."""
    first, second = (
        make_run(tmp_path_factory.mktemp("compared") / "run", latents=SHOWN + 5) for _ in range(2)
    )
    order = torch.arange(SHOWN + 5).roll(2)
    others = {name: getattr(second, name)[order] for name in ("latents", "push")}
    return deltalens.compare(first, replace(second, **others))


def test_a_comparison_is_drawn_by_the_ranks_of_what_is_shared(compared):
    (axes,) = (figure := compared.plot()).axes
    points = {line.get_gid(): line for line in axes.lines if line.get_gid()}
    assert points.keys() == {f"point-{latent.latent}" for latent in compared.shared}
    assert len(points) == SHOWN + 5
    for latent in compared.shared:
        line = points[f"point-{latent.latent}"]
        assert (*line.get_xdata(), *line.get_ydata()) == latent.ranks
    assert {latent.ranks[1] - latent.ranks[0] for latent in compared.shared} == {2, -SHOWN - 3}
    named = [str(latent.latent) for latent in compared.shared[:NAMED]]
    assert [text.get_text() for text in axes.texts] == named
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    drawn(figure)


def test_the_sides_of_push_are_colours_and_shapes(compared):
    one, other = replace(compared.shared[0], pushes=(1.0, 2.0)), compared.shared[1]
    pair = [one, replace(other, pushes=(1.0, -2.0))]
    figure = replace(compared, shared=pair).plot()
    looks = {
        (line.get_color(), line.get_marker()) for line in figure.axes[0].lines if line.get_gid()
    }
    assert len({colour for colour, _ in looks}) == len({shape for _, shape in looks}) == 2
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "pushes the same way in both",
        "pushes the other way in the second",
    ]


@pytest.mark.parametrize("name", STRANGE)
def test_studies_that_share_nothing_are_drawn_under_any_name(compared, name):
    found = texts(drawn(replace(compared, shared=[], names=(name, "b")).plot()))
    assert f"0 of {compared.n_latents} latents are in both lists" in found
    assert [text for text in found if visible(name)[-20:] in text]


def test_ink_is_the_pages_own_and_nothing_is_behind_it(ranked, swept):
    for figure in (ranked.plot(), swept.plot()):
        html = figure._repr_html_()
        assert "currentColor" in html
        assert "#1f2933" not in html
        assert "#ffffff" not in html


def test_figures_open_no_window_and_change_no_settings(ranked, tmp_path: Path):
    with matplotlib.rc_context({"lines.linewidth": 9}):
        before = dict(matplotlib.rcParams)
        figure = ranked.plot()
        figure._repr_html_()
        assert dict(matplotlib.rcParams) == before
    figure.savefig(tmp_path / "figure.pdf")
    assert (tmp_path / "figure.pdf").read_bytes().startswith(b"%PDF")
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or pyplot.get_fignums() == []
