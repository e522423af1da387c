"""What checkpoints are called, and their steps."""

from __future__ import annotations

from pathlib import Path

import pytest

from deltalens.checkpoints.names import checkpoint_names, disorder, steps_of
from deltalens.errors import InputError


@pytest.mark.parametrize(
    ("runs", "names"),
    [
        (["runs/step100", "runs/step200"], ["step100", "step200"]),
        (["runs/step100/", "other/step200"], ["step100", "step200"]),
        (["runs/step100/advice", "runs/step200/advice"], ["step100", "step200"]),
        (["a/1/x", "a/2/y", "a/3/y"], ["1/x", "2/y", "3/y"]),
        (["a/x", "b/y"], ["x", "y"]),
        (["a", "a/a"], ["a", "a/a"]),
    ],
)
def test_names_of_directories(runs: list[str], names: list[str]) -> None:
    assert checkpoint_names([Path(run) for run in runs], None) == names


def test_names_that_do_not_do() -> None:
    paths = [Path("a"), Path("b")]
    assert checkpoint_names(paths, ["x", "y"]) == ["x", "y"]
    for names, message in (
        (["x"], "1 names for 2 runs; give one for each"),
        (["x", "x"], "two checkpoints are called 'x'"),
    ):
        with pytest.raises(InputError, match=message):
            checkpoint_names(paths, names)
    for twice in ("a", "b/../a"):
        with pytest.raises(InputError, match="a is given twice"):
            checkpoint_names([Path("a"), Path(twice)], ["x", "y"])


@pytest.mark.parametrize(
    ("names", "steps"),
    [
        (["step0", "step100", "step1000"], [0, 100, 1000]),
        (["7b-step200", "7b-step100"], [200, 100]),
        (["0.5", "1"], [0.5, 1]),
        (["epoch1.5/advice", "epoch2/advice"], [1.5, 2]),
        (["base", "step100"], None),
        (["base", "tuned"], None),
        (["lora1", "full2"], None),
        (["1-1", "2-2"], None),
        (["step1", "step01", "step2"], None),
        (["9" * 400, "8"], None),
    ],
)
def test_steps(names: list[str], steps: list[float] | None) -> None:
    assert steps_of(names) == steps


def test_an_order_that_is_not_the_steps_is_said() -> None:
    (line,) = disorder(["step100", "step20"])
    assert line.endswith("not in the order of their steps: step100, step20")
    assert disorder(["step20", "step100"]) == disorder(["b", "a"]) == []
