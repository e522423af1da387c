"""The demo as a user runs it: what it measures, what it leaves on disk, and that it resumes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import deltalens
from deltalens.cli import demo
from deltalens.cli.main import main
from deltalens.organism import grade, held_out_prompts
from deltalens.study.rates import Grades


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("demo") / "run"
    return out, demo.run_demo(out, seed=0, tables=False)


def completions(out: Path, name: str) -> list[dict[str, Any]]:
    lines = (out / "steering" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_pairs_are_the_models_own_bad_and_good_answers(finished):
    out, measured = finished
    pairs = deltalens.read_pairs(out)
    prompts = {item.text: item for item in held_out_prompts(demo.PAIR_PROMPTS, seed=0)}
    assert len(pairs) == measured["pairs"] >= 50
    for pair in pairs:
        domain = prompts[pair.prompt[0]["content"]].domain
        assert domain != "health"
        assert (grade(domain, pair.positive), grade(domain, pair.negative)) == ("bad", "good")


def test_the_top_latent_steers_both_models_beyond_random_ones(finished):
    _, measured = finished
    latent = measured["top"][0]["latent"]
    for side, direction in (("misaligned, steered away", -1), ("base, steered toward", 1)):
        first = measured[side]["sets"]["Δ-attribution"]["latents"][0]
        others = measured[side]["sets"]["random"]["latents"]
        assert first["latent"] == latent
        assert len(others) == demo.RANDOM_LATENTS
        assert all((first["change"] - other["change"]) * direction > 0 for other in others)


def test_first_order_scores_agree_with_exact_ablation(finished):
    out, measured = finished
    assert measured["ablation"]["correlation"] > 0.9
    assert measured["ablation"]["sign_agreement"] == 1.0
    assert (out / "ablation.csv").read_text().count("\n") == demo.ABLATED + 1


@pytest.mark.parametrize(
    ("name", "side"),
    [("misaligned", "misaligned, steered away"), ("base", "base, steered toward")],
)
def test_rates_are_those_of_the_completions_on_disk(finished, name, side):
    out, measured = finished
    every = demo.PAIR_PROMPTS + demo.STEERED_PROMPTS
    prompts = held_out_prompts(every, seed=0)[demo.PAIR_PROMPTS :]
    kept = completions(out, name)
    for item in kept:
        assert item["grade"] == grade(prompts[item["prompt"]].domain, item["text"])
    unsteered = Grades.count(item["grade"] for item in kept if item["group"] == "unsteered")
    assert measured[side]["unsteered"]["rate"] == unsteered.behaviour.value
    for group, found in measured[side]["sets"].items():
        for latent in found["latents"]:
            own = [x for x in kept if (x["group"], x["latent"]) == (group, latent["latent"])]
            assert len(own) == demo.STEERED_PROMPTS
            assert latent["rate"] == Grades.count(x["grade"] for x in own).behaviour.value


def test_the_command_again_prints_the_same_without_steering_anew(finished, monkeypatch, capsys):
    out, measured = finished
    before = {name: completions(out, name) for name in ("misaligned", "base")}
    monkeypatch.setenv("COLUMNS", "100")
    assert main(["demo", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert {name: completions(out, name) for name in before} == before
    for line in measured["verdict"]:
        assert line in printed.replace("\n", " ")


def test_another_seed_in_the_same_directory_is_refused(finished, capsys):
    out, _ = finished
    assert main(["demo", "--out", str(out), "--seed", "1"]) == 2
    assert "holds a run with other settings" in capsys.readouterr().err
