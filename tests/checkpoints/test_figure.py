"""Checkpoints as table, figure and JSON show what was found."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from deltalens import write_checkpoints
from deltalens.checkpoints.activation import Active, Source
from deltalens.checkpoints.attributed import Attributed
from deltalens.checkpoints.course import Checkpoint, Course, State
from deltalens.checkpoints.detected import Detected, Texts
from deltalens.checkpoints.figure import checkpoints_figure
from deltalens.checkpoints.result import CheckpointComparison
from deltalens.checkpoints.steered import ArmState, Steered
from deltalens.visible.figures.style import style

HOSTILE = "=HYPERLINK(\x1b[2J) $x$ <b>"


def state(score: float | None, change: float = 0.1) -> State:
    values = Attributed() if score is None else Attributed(3, score, 0.5, 0.01, 2, 5, -score, 0.1)
    away = Steered(1, -change, -change - 0.1, 0.0, None)
    return State(
        values, Active(score, 0.25, 0.1, 0.01, 0.5, 0.4), {"away": away}, Detected(0.75, 0.6, None)
    )


def comparison(
    names: list[str], steps: list[float | None], latents: int = 3
) -> CheckpointComparison:
    arms = {"away": ArmState("m", "add", 0.4, 2.0, 0.5, 0.4, 0.6)}
    source = Source("completion", 4, None)
    return CheckpointComparison(
        "blocks.1.hook_resid_post",
        "abc",
        500,
        [
            Checkpoint(
                name,
                step,
                f"runs/{name}",
                "m",
                6,
                100,
                source,
                arms,
                Texts("pairs", "activation", 4, 4, None),
            )  # type: ignore[arg-type]
            for name, step in zip(names, steps, strict=True)
        ],
        [
            Course(
                latent, [HOSTILE], [state(None if at == latent else at + 1.0) for at in range(3)]
            )
            for latent in range(latents)
        ],
        [],
    )


NUMBERED = comparison(["step0", "step10", "step100"], [0.0, 10.0, 100.0])


def test_lines_are_the_values_at_the_steps() -> None:
    with style("test"):
        figure = checkpoints_figure(NUMBERED)
    titles = [axis.get_title(loc="left") or axis.get_title() for axis in figure.axes]
    assert titles == [
        "Score",
        "Rank",
        "Push",
        "Mean activation",
        "Steered away",
        "Detection",
    ]
    lines = {line.get_gid(): line for axis in figure.axes for line in axis.lines}
    line = lines["curve-score-0"]
    assert line.get_xdata().tolist() == [0, 10, 100]
    assert line.get_ydata().tolist() == pytest.approx([float("nan"), 2, 3], nan_ok=True)
    assert lines["curve-away-1"].get_ydata().tolist() == pytest.approx([-10, -10, -10])
    assert lines["curve-activation-1-against"].get_ydata().tolist() == [0.25] * 3
    assert figure.axes[0].get_xlabel() == "step"
    bars = figure.axes[0].collections[0].get_segments()
    # Student's t of 5 degrees of freedom: 2.5706
    assert [end for _, end in bars[2]] == pytest.approx([3 - 1.2853, 3 + 1.2853], abs=1e-4)
    rings = [line for line in figure.axes[1].lines if line.get_linestyle() == "None"]
    assert [line.get_xdata().tolist() for line in rings] == [[0], [10], [100]]


def test_names_where_there_are_no_steps_and_few_of_many_latents() -> None:
    with style("test"):
        figure = checkpoints_figure(comparison(["base", HOSTILE, "tuned"], [None] * 3, latents=9))
    shown = [text.get_text() for text in figure.axes[0].get_xticklabels()]
    assert shown[0] == "base"
    assert "\x1b" not in shown[1]
    assert len({line.get_gid() for line in figure.axes[0].lines if line.get_gid()}) == 5
    assert figure.legends[0].get_title().get_text() == "latent\nfirst 5 of 9"


def test_nothing_known_still_makes_a_figure() -> None:
    empty = State(Attributed(), None, {}, None)
    courses = [Course(7, [], [empty] * 3)]
    with style("test"):
        assert len(checkpoints_figure(replace(NUMBERED, courses=courses)).axes) == 1


def test_files(tmp_path: Path) -> None:
    found = comparison(["base", HOSTILE, "tuned"], [None] * 3)
    written = write_checkpoints(found, tmp_path / "out")
    assert [path.name for path in written] == [
        f"checkpoints.{ending}" for ending in ("csv", "svg", "png", "json")
    ]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(
        path.name for path in written
    )
    first = [path.read_bytes() for path in written]
    write_checkpoints(found, tmp_path / "out")
    assert [path.read_bytes() for path in written] == first
    ElementTree.fromstring(written[1].read_text())
    assert json.loads(written[3].read_text()) == json.loads(json.dumps(found.as_dict()))
    with written[0].open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["latent"] for row in rows] == [str(n) for n in range(3) for _ in range(3)]
    assert rows[1]["checkpoint"].startswith("'=HYPERLINK(\\x1b")
    assert rows[1]["promotes"].startswith("'=")
    assert (rows[1]["score"], rows[1]["rank"]) == ("2.0", "3")
    assert (rows[0]["score"], rows[0]["step"]) == ("", "")
    assert (rows[1]["away_strength"], rows[1]["away_change"]) == ("0.4", "-0.1")
    assert rows[1]["activation_mean"] == "2.0"
    assert (rows[1]["detection_auc"], rows[1]["detection_high"]) == ("0.75", "")
    assert rows[1]["toward_change"] == rows[1]["away_p"] == ""
