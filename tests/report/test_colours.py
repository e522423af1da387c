"""Series can be told apart whatever cones a reader has, and by more than their colour."""

from __future__ import annotations

import re
from functools import partial
from importlib import resources
from itertools import combinations
from pathlib import Path

import pytest

from deltalens.report.figures import save_figure
from deltalens.trials.verdicts.shown.curves import figure_2
from deltalens.trials.verdicts.shown.panels import COLOURS
from deltalens.visible.figures.style import CURVES, MARKERS, style
from helpers.colour_vision import SEEN, contrast, distance
from helpers.finished_run import make_run, make_sweep, plain_texts

APART = 15  # ΔE; 2.3 is just noticeable
SERIES = ("attribution", "activation", "push", "present", "gradient", "cosine")


def css() -> str:
    return (resources.files("deltalens.report") / "assets" / "page.css").read_text()


def themed(name: str) -> tuple[str, str]:
    """A colour of the page in the light and in the dark theme."""
    light, dark = re.findall(rf"--{name}: (#[0-9a-f]+|[\d ]+);", css())
    return light, dark


def hexadecimal(channels: str) -> str:
    return "#" + "".join(f"{int(value):02x}" for value in channels.split())


def palettes() -> dict[str, list[str]]:
    both = [themed(name) for name in SERIES]
    signs = [themed(name) for name in ("plus", "minus")]
    return {
        "page, light": [light for light, _ in both],
        "page, dark": [dark for _, dark in both],
        "signs, light": [hexadecimal(light) for light, _ in signs],
        "signs, dark": [hexadecimal(dark) for _, dark in signs],
        "figures' sets": list(COLOURS.values()),
        "figures' lines": list(CURVES),
    }


@pytest.mark.parametrize("seen", SEEN)
@pytest.mark.parametrize("palette", palettes())
def test_colours_are_apart_for_every_reader(palette: str, seen: str) -> None:
    colours = palettes()[palette]
    nearest = min(distance(*both, SEEN[seen]) for both in combinations(colours, 2))
    assert nearest >= APART


def test_the_simulation_confuses_what_such_readers_confuse() -> None:
    """Red and a green of the same lightness, and nothing between black and white."""
    assert distance("#d04f3c", "#7d7d2e", SEEN["all cones"]) > 50
    assert distance("#d04f3c", "#7d7d2e", SEEN["deuteranopia"]) < 25
    for seen in SEEN.values():
        assert distance("#000000", "#ffffff", seen) == pytest.approx(100, abs=0.1)


def test_text_stands_out_from_what_it_is_on() -> None:
    for theme in (0, 1):
        for ink in ("ink", "dim", "link", "good", "bad"):
            for ground in ("page", "panel", "soft"):
                assert contrast(themed(ink)[theme], themed(ground)[theme]) >= 4.5, (ink, ground)


def test_lines_differ_in_their_marks_too(tmp_path: Path) -> None:
    assert len(set(MARKERS)) == len(MARKERS) >= len(CURVES)
    result = make_sweep(make_run(tmp_path / "run"), plain_texts())
    with style("test"):
        axes = figure_2(result).axes[0]
    drawn = [line for line in axes.lines if str(line.get_gid()).startswith("curve-")]
    assert len({line.get_marker() for line in drawn}) == len(drawn) == len(CURVES)
    assert "<svg" in save_figure(tmp_path, "figure-2", partial(figure_2, result))
