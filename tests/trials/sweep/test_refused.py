"""What does not fit is said before anything is sampled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import deltalens
from deltalens.trials import work as sweep_work
from deltalens.trials.result import ATTRIBUTION, RANDOM, Candidate
from deltalens.trials.setup.settings import Generation
from helpers.tiny_study import D_MODEL, make_model
from helpers.tiny_sweep import SETS, run_sweep


def test_too_few_controls_are_said_before_anything_is_sampled(
    tmp_path: Path, caplog: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(sweep_work.ArmWork, "complete", None)
    with pytest.raises(TypeError):
        run_sweep(tmp_path)
    (said,) = caplog.messages
    assert said.startswith("2 random latents:")
    assert said.endswith("it takes 19")  # 1/20 = 10 % / 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"models": {}}, "steered 'away' or 'toward'"),
        ({"models": {"up": None}}, r"got \['up'\]"),
        ({"prompts": []}, "no prompts"),
        ({"sets": {ATTRIBUTION: SETS[ATTRIBUTION]}}, "random latents"),
        ({"sets": {RANDOM: [Candidate(50, 1)]}}, "latent 50 does not exist"),
        ({"strengths": ()}, "strengths must be positive"),
        ({"strengths": (1.0, 0.5)}, "strengths must rise"),
        ({"strengths": (float("nan"),)}, "strengths must be positive"),
        ({"samples": 0}, "samples must be at least 1"),
        ({"max_incoherence": 1.5}, "max_incoherence must be 0 … 1"),
        ({"decoder": torch.ones(9, 7)}, "d_model 7"),
    ],
)
def test_what_does_not_fit_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(deltalens.InputError, match=message):
        run_sweep(tmp_path, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"models": {"away": make_model(), "toward": make_model(num_hidden_layers=1)}}, "no site"),
        ({"models": {"away": make_model(), "toward": make_model(hidden_size=32)}}, "d_model 24"),
        ({"decoder": torch.full((50, D_MODEL), torch.nan)}, "NaN or infinity"),
        ({"generation": Generation(max_new_tokens=100)}, "prompt 0: 4 . 100 new"),
        ({"generation": Generation(max_new_tokens=4, temperature=-1.0)}, "temperature must be 0"),
        ({"judge": object()}, "a sweep needs a judge, got object"),
    ],
)
def test_everything_is_checked_before_the_first_sample(
    tmp_path: Path, changes: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep_work.ArmWork, "complete", None)
    with pytest.raises(deltalens.InputError, match=message):
        run_sweep(tmp_path, **changes)
    assert not (tmp_path / "steering" / "settings.json").exists()
