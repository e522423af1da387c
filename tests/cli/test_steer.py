"""``deltalens steer``: what the library finds, in tables and JSON; one line on bad input."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch

import deltalens
from deltalens.cli.loading import load_model
from deltalens.cli.main import main
from deltalens.trials import sweep
from deltalens.trials.candidates import candidate_sets
from deltalens.trials.result import SweepResult
from deltalens.trials.setup.settings import Generation
from deltalens.trials.weighing import weighed
from helpers.command_line import attribute_args, error_line, printed_json
from helpers.tiny_study import (
    SITE,
    make_model,
)

JUDGE = """
def odd(prompt, text):
    return "shown" if len(text) % 2 else "absent"

def broken(prompt, text):
    raise RuntimeError("no idea")
"""


@pytest.fixture(scope="module")
def ready(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a finished run, another model, a judge and questions."""
    root = tmp_path_factory.mktemp("steer")
    main(attribute_args(inputs, root / "run", k=12))
    make_model(seed=1).save_pretrained(root / "base")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        if (inputs / "model" / name).exists():
            (root / "base" / name).write_text((inputs / "model" / name).read_text())
    (root / "judge.py").write_text(JUDGE)
    (root / "questions.txt").write_text("w7 w8\nw9\nw10 w11 w12\n")
    return root


def steer_args(ready: Path, run: Path, *more: str) -> list[str]:
    return [
        "steer",
        str(run),
        "--judge",
        f"{ready / 'judge.py'}:odd",
        *[
            "--top",
            "3",
            "--random",
            "4",
            "--matched",
            "2",
            "--strengths",
            "0.5",
            "1",
            "--samples",
            "2",
        ],
        *["--max-new-tokens", "4", "--seed", "2", "--quiet"],
        *more,
    ]


@pytest.fixture
def run(ready: Path, tmp_path: Path) -> Path:
    import shutil

    return Path(shutil.copytree(ready / "run", tmp_path / "run"))


def test_the_command_prints_what_the_library_finds(ready, run, inputs, tmp_path, capsys):
    against = ["--against", str(ready / "base")]
    printed = printed_json(capsys, steer_args(ready, run, *against))
    found = SweepResult.load(run)

    class Odd:
        name, version, resamples = "odd", "0" * 16, 0

        def grade(self, answers: Any) -> Any:
            for number, answer in enumerate(answers):
                outcome = "shown" if len(answer.text) % 2 else "absent"
                yield number, deltalens.judge.Verdict(outcome, outcome)

    result = deltalens.Attribution.load(run)
    sae = deltalens.load_sae(inputs / "sae")
    models, tokenizer = {}, None
    for name, path in (("away", inputs / "model"), ("toward", ready / "base")):
        options = {"model": str(path), "revision": None, "device": "cpu", "dtype": "auto"}
        models[name], tokenizer = load_model(Namespace(**options))
    prompts = [pair.prompt for pair in result.pairs]
    activation = deltalens.delta_activation(
        models["away"], models["toward"], tokenizer, prompts, sae, site=SITE, k=100
    )
    sets = candidate_sets(result, activation, sae, top=3, n_random=4, n_matched=2, seed=2)
    expected = sweep(
        models,
        tokenizer,
        prompts,
        sae,
        sets,
        Odd(),
        run=tmp_path / "library",
        site=SITE,
        generation=Generation(4, seed=2),
        strengths=(0.5, 1.0),
        samples=2,
    )
    assert (found.sets, found.arms) == (expected.sets, expected.arms)
    assert found.verdicts == expected.verdicts
    verdict = expected.verdicts["away"].sets["Δ-activation"]
    assert printed["arms"]["away"]["verdict"]["sets"]["Δ-activation"]["p"] == verdict.p
    assert printed["arms"]["toward"]["random_band"] == list(expected.band("toward"))
    first = printed["arms"]["away"]["sets"]["Δ-attribution"]["latents"][0]
    assert first["change"] == expected.changes("away", "Δ-attribution")[0]
    assert torch.equal(deltalens.ActivationDifference.load(run).difference, activation.difference)


def test_the_tables_name_what_is_in_them(ready, run, capsys):
    argv = steer_args(ready, run, "--prompts", str(ready / "questions.txt"))
    assert main(argv) == 0
    shown = capsys.readouterr().out
    result = SweepResult.load(run)
    assert set(result.arms) == {"away"}
    assert result.settings["prompts"] == 3
    for candidate in result.sets["Δ-attribution"]:
        assert str(candidate.latent) in shown
    assert "beyond random" in shown
    assert "mean change of 3 latents" in shown
    assert "steered away" in shown
    assert "steered toward" not in shown
    assert str(run / "steering") in shown


def test_all_sets_in_one_sweep(ready, run, inputs, capsys):
    rankings = ["attribution", "push", "present", "activation", "gradient", "cosine"]
    printed = printed_json(capsys, [*steer_args(ready, run), "--sets", *rankings])
    result, sae = deltalens.Attribution.load(run), deltalens.load_sae(inputs / "sae")
    sets = candidate_sets(
        result,
        deltalens.ActivationDifference.load(run),
        sae,
        rankings=rankings,
        top=3,
        n_random=4,
        n_matched=2,
        seed=2,
    )
    assert SweepResult.load(run).sets == sets
    assert len(sets) == 8
    for name, candidates in sets.items():
        latents = printed["arms"]["away"]["sets"][name]["latents"]
        assert [found["latent"] for found in latents] == [c.latent for c in candidates]
    completions = (run / "steering" / "away.jsonl").read_text().splitlines()
    steered = {c for candidates in sets.values() for c in candidates}
    assert len(completions) == len(result.pairs) * (10 + 2 * 2 * len(steered))
    deltalens.write_report(run)
    page = (run / "report.html").read_text(encoding="utf-8")
    for name in ("push", "present", "gradient", "gradient cosine"):
        assert f'"{name}"' in page
    assert main([*steer_args(ready, run), "--sets", "push", "cosine"]) == 0
    shown = capsys.readouterr().out
    assert "push: share with the behaviour" in shown
    assert "gradient cosine: share with the behaviour" in shown
    assert "Δ-attribution" not in shown
    assert "invalid choice" in usage_error(capsys, [*steer_args(ready, run), "--sets", "pull"])


def usage_error(capsys, argv):
    with pytest.raises(SystemExit):
        main(argv)
    return capsys.readouterr().err


def test_choosing_again_loads_nothing(ready, run, capsys, monkeypatch):
    main(steer_args(ready, run))
    before = SweepResult.load(run)
    capsys.readouterr()
    monkeypatch.setattr("deltalens.cli.loading.load_model", None)
    again = ["steer", str(run), "--choose-again", "--max-incoherence", "0.5"]
    assert printed_json(capsys, again)["settings"]["max_incoherence"] == 0.5
    assert SweepResult.load(run) == weighed(before.with_limit(0.5), run)


def test_an_adaptive_sweep_says_what_it_does(ready, run, capsys):
    argv = [*steer_args(ready, run, "--adaptive", "--json")]
    argv.remove("--quiet")
    assert main(argv) == 0
    captured = capsys.readouterr()
    assert "To do: from " in captured.err
    assert "random latents: enough for the verdict on each set" in captured.err
    assert " prompts: " in captured.err
    assert SweepResult.load(run).settings["adaptive"]
    again = ["steer", str(run), "--choose-again", "--max-incoherence", "0.5"]
    assert "adaptive sweep" in error_line(capsys, again)
    main(steer_args(ready, run))
    assert not SweepResult.load(run).settings["adaptive"]
    assert "To do" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        (["ablate"], "ablate direction"),
        (["clamp", "--clamp", "q0.9", "--only-active"], "clamp to q0.9 where active"),
        (["multiply"], "multiply"),
        (["add", "--only-active"], "add where active"),
    ],
)
def test_other_interventions(ready, run, capsys, asked, name):
    argv = steer_args(ready, run, "--against", str(ready / "base"), "--intervention", *asked)
    assert main(argv) == 0
    shown = capsys.readouterr().out
    found = SweepResult.load(run)
    assert found.intervention == found.settings["intervention"] == name
    assert f"Intervention: {name}; strengths: " in shown
    assert set(found.arms) == ({"away"} if asked[0] == "ablate" else {"away", "toward"})
    changed = [p.tally for arm in found.arms.values() for c in arm.curves for p in c.points]
    assert changed
    assert main(argv) == 0
    assert SweepResult.load(run) == found
    other = steer_args(ready, run)
    assert f"intervention ({name} there, add here)" in error_line(capsys, other)


def test_what_an_intervention_cannot_do_is_one_line(ready, run, capsys):
    argv = steer_args(ready, run)
    for more, message in (
        (["--intervention", "clamp"], "needs what to clamp to"),
        (["--clamp", "5"], "nothing else takes it"),
        (["--intervention", "clamp", "--clamp", "lots"], "such as q0.99, got 'lots'"),
        (["--intervention", "ablate", "--both-ways"], "steers away only"),
        (["--intervention", "multiply", "--only-active"], "leave only_active out"),
    ):
        assert message in error_line(capsys, [*argv, *more])
    argv[argv.index("1")] = "2"
    assert "ablates all of a latent" in error_line(capsys, [*argv, "--intervention", "ablate"])


def test_bad_input_is_one_line(ready, run, tmp_path, capsys):
    argv = steer_args(ready, run)
    without_judge = [item for item in argv if "judge" not in item]
    assert "give --judge" in error_line(capsys, without_judge)
    assert "no finished sweep" in error_line(capsys, ["steer", str(run), "--choose-again"])
    assert "no complete run" in error_line(capsys, steer_args(ready, tmp_path / "none"))
    missing = [*argv, "--prompts", str(tmp_path / "none.yaml")]
    assert "none.yaml" in error_line(capsys, missing)
    assert "strengths must rise" in error_line(capsys, [*argv, "--strengths", "1", "0.5"])
    other = [item.replace(":odd", ":even") for item in argv]
    assert "even" in error_line(capsys, other)
    broken = [item.replace(":odd", ":broken") for item in argv]
    assert "no idea" in error_line(capsys, broken)
    main(argv)
    assert "seed (2 there, 3 here)" in error_line(capsys, [*argv, "--seed", "3"])


def test_one_model_is_steered_both_ways(ready, run, capsys):
    printed = printed_json(capsys, steer_args(ready, run, "--both-ways"))
    found = SweepResult.load(run)
    assert set(found.arms) == set(printed["arms"]) == {"away", "toward"}
    away, toward = found.arms["away"], found.arms["toward"]
    assert (away.model, away.norm) == (toward.model, toward.norm)
    assert away.unsteered == toward.unsteered
    for one, other in zip(away.curves, toward.curves, strict=True):
        pairs = zip(one.points, other.points, strict=True)
        assert all(point.strength == -opposite.strength for point, opposite in pairs)


def test_latents_together(ready, run, capsys):
    argv = steer_args(ready, run, "--together", "2")
    assert main(argv) == 0
    shown = capsys.readouterr().out
    found, result = SweepResult.load(run), deltalens.Attribution.load(run)
    (suspects,) = found.sets["Δ-attribution"]
    assert [latent for latent, _ in suspects.members] == result.latents[:2].tolist()
    assert {len(c.members) for chosen in found.sets.values() for c in chosen} == {2}
    assert suspects.name in shown
    assert "mean change of 1 group of 2 latents" in shown
    deltalens.write_report(run)
    page = (run / "report.html").read_text(encoding="utf-8")
    curve = f"curve-away-behaviour-{suspects.members[0][0]}-{suspects.members[1][0]}"
    assert curve in page


def test_latents_chosen_greedily(ready, run, capsys):
    argv = steer_args(ready, run, "--greedy", "2", "--sets", "attribution")
    assert main(argv) == 0
    shown = capsys.readouterr().out
    found = SweepResult.load(run)
    assert {len(c.members) for chosen in found.sets.values() for c in chosen} == {2}
    assert "Δ-attribution, step by step: " in shown
    assert "“random, chosen alike” is what the same choice makes of random latents" in shown
    again = ["steer", str(run), "--choose-again", "--max-incoherence", "0.5"]
    assert "holds a greedy selection" in error_line(capsys, again)
    assert "leave one of the two out" in error_line(capsys, [*argv, "--together", "2"])
    deltalens.write_report(run)


def test_side_effects_are_shown(ready, run, inputs, capsys):
    neutral = ["--neutral", str(inputs / "texts.txt"), "--neutral-tokens", "4"]
    questions = ["--prompts", str(ready / "questions.txt")]
    assert main([*steer_args(ready, run), *questions, "--both-ways", *neutral]) == 0
    shown, found = capsys.readouterr().out, SweepResult.load(run)
    for title in ("greedy", "away: loss", "toward: loss", "effects steered away"):
        assert title in shown
    arm = found.arms["toward"]
    assert arm.unsteered_effects is not None
    assert arm.unsteered_effects.neutral is not None
    assert (arm.unsteered_effects.neutral.texts, arm.unsteered_effects.neutral.tokens) == (2, 6)
    for candidate in found.sets["Δ-attribution"]:
        point = arm.chosen(candidate)
        if point is not None:
            assert f"{point.side_effects.neutral.rise.value:+.2f}" in shown
    printed = printed_json(capsys, [*steer_args(ready, run), *questions, "--both-ways"])
    assert printed["arms"]["toward"]["unsteered"]["side_effects"]["neutral"]["rise"] is None
    first = printed["arms"]["toward"]["sets"]["Δ-attribution"]["latents"][0]
    assert set(first["side_effects"]["neutral"]) >= {"loss", "rise", "changed", "rises"}


def test_side_effects_of_a_finished_sweep(ready, run, inputs, capsys):
    questions = ["--prompts", str(ready / "questions.txt")]
    against = ["--against", str(ready / "base")]
    assert main([*steer_args(ready, run), *questions, *against]) == 0
    shown = capsys.readouterr().out
    for title in ("away: tokens", "toward: tokens", "--neutral tells the loss", "length itself"):
        assert title in shown
    for column in ("greedy", ": loss", "above 0.1"):  # what was not read has none
        assert column not in shown
    alone = ["steer", str(run), "--only-side-effects", "--quiet"]
    neutral = ["--neutral", str(inputs / "texts.txt")]
    assert "toward is not the one" in error_line(capsys, [*alone, *neutral])
    printed = printed_json(capsys, [*alone, *neutral, *against])
    first = printed["arms"]["away"]["sets"]["Δ-attribution"]["latents"][0]
    assert first["side_effects"]["neutral"]["texts"] == 2
    assert "goes with --neutral" in error_line(capsys, alone)
    assert "goes with --neutral" in error_line(capsys, [*alone, *neutral, "--choose-again"])
