"""One engine draws a sweep's completions and is recorded; no other continues it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import deltalens
from deltalens.lm.sampling.engine import TRANSFORMERS, Transformers
from deltalens.trials.result import SweepResult
from helpers.sweep_files import FILES, lines
from helpers.tiny_study import make_model, make_tokenizer
from helpers.tiny_sweep import run_sweep


class Counted(Transformers):
    """Another engine, whose texts are another's."""

    name = "counted 1.0"  # type: ignore[misc]


def counted(name: str = "counted 1.0") -> dict[str, Any]:
    models = {"away": make_model(), "toward": make_model(seed=1)}
    engines = {key: Counted(model, make_tokenizer()) for key, model in models.items()}
    return {"models": models, "engines": engines}


def test_an_engine_draws_and_is_recorded(tmp_path: Path, whole: tuple[Path, SweepResult]) -> None:
    result = run_sweep(tmp_path, **counted())
    assert result.arms == whole[1].arms
    assert result.settings["engine"] == "counted 1.0"
    assert whole[1].settings["engine"] == TRANSFORMERS


def test_a_sweep_is_not_continued_on_another_engine(copied: Path) -> None:
    message = rf"other settings: engine \({re.escape(TRANSFORMERS)} there, counted 1.0 here"
    with pytest.raises(deltalens.InputError, match=message):
        run_sweep(copied, **counted())


@pytest.mark.parametrize("recorded", [None, "transformers"])
def test_a_sweep_of_an_earlier_draw_is_not_continued(copied: Path, recorded: str | None) -> None:
    """The same streams would give other texts: a sweep must not hold some of each."""
    path = copied / "steering" / "settings.json"
    kept = json.loads(path.read_text())
    del kept["sampling"]["engine"]
    if recorded:
        kept["sampling"]["engine"] = recorded
    path.write_text(json.dumps(kept))
    before = {name: lines(copied, name) for name in FILES}
    message = rf"engine \(transformers there, {re.escape(TRANSFORMERS)} here\); use the same, or"
    with pytest.raises(deltalens.InputError, match=message):
        run_sweep(copied)
    assert {name: lines(copied, name) for name in FILES} == before


def test_both_models_have_one_engine(tmp_path: Path) -> None:
    given = counted()
    mixed = {**given["engines"], "away": Transformers(given["models"]["away"], make_tokenizer())}
    with pytest.raises(deltalens.InputError, match=r"got counted 1\.0 and transformers"):
        run_sweep(tmp_path, models=given["models"], engines=mixed)
    del mixed["toward"]
    with pytest.raises(deltalens.InputError, match="engines are for"):
        run_sweep(tmp_path, models=given["models"], engines=mixed)
