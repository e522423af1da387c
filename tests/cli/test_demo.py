"""The demo as a user runs it, on fewer prompts: what it measures and leaves; it resumes."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

import deltalens
from deltalens.cli.demo import run as demo
from deltalens.cli.demo import study as demo_study
from deltalens.cli.main import main
from deltalens.judge import Answer
from deltalens.organism import BEHAVIOURS, GrammarJudge
from deltalens.trials.rates import Tally

SMALLER = {"PAIR_PROMPTS": 60, "STEERED_PROMPTS": 50, "PER_SET": 4, "CORPUS_DIALOGUES": 200}
SMALLER |= {"RANDOM_LATENTS": 10, "MATCHED_LATENTS": 5}
NAMES = list(BEHAVIOURS)


@pytest.fixture(scope="module", autouse=True)
def _smaller() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SMALLER.items():
            patch.setattr(demo_study, name, value)
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, _smaller: Any) -> tuple[Path, Any]:
    import contextlib
    import io

    out, printed = tmp_path_factory.mktemp("demo") / "run", io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert main(["demo", "--out", str(out), "--json"]) == 0
    return out, json.loads(printed.getvalue())


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def prompts_of(name: str) -> list[Any]:
    count = SMALLER["PAIR_PROMPTS"] + SMALLER["STEERED_PROMPTS"]
    return BEHAVIOURS[name].held_out_prompts(count, seed=0)


@pytest.mark.parametrize("name", NAMES)
def test_pairs_are_the_model_s_own_answers_of_both_kinds(finished, name):
    out, measured = finished
    pairs = deltalens.read_pairs(out / name)
    prompts = {prompt.text: prompt for prompt in prompts_of(name)[: SMALLER["PAIR_PROMPTS"]]}
    assert len(pairs) == measured["studies"][name]["pairs"] >= 20
    for pair in pairs:
        prompt = prompts[pair.prompt[0]["content"]]
        assert prompt.domain != BEHAVIOURS[name].tuned_domain
        graded = [BEHAVIOURS[name].grade(prompt, text) for text in (pair.positive, pair.negative)]
        assert [verdict.outcome for verdict in graded] == ["shown", "absent"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("direction", ["away", "toward"])
def test_rates_are_those_of_the_completions_on_disk(finished, name, direction):
    out, measured = finished
    prompts = prompts_of(name)[SMALLER["PAIR_PROMPTS"] :]
    outcomes = defaultdict(list)
    kept = rows(out / name / "steering" / f"{direction}.jsonl")
    answers = [Answer(prompts[row["prompt"]].messages, row["text"]) for row in kept]
    for number, verdict in GrammarJudge().grade(answers):
        row = kept[number]
        outcomes[row["latent"], row["strength"]].append(verdict.outcome)
    arm = measured["studies"][name]["steering"]["arms"][direction]
    assert arm["unsteered"]["rate"] == Tally.count(outcomes[None, 0.0]).behaviour.value
    for found in arm["sets"].values():
        for latent in found["latents"]:
            if latent["strength"]:
                own = outcomes[latent["latent"], latent["strength"]]
                assert len(own) == SMALLER["STEERED_PROMPTS"]
                assert latent["rate"] == Tally.count(own).behaviour.value


@pytest.mark.parametrize("name", NAMES)
def test_suspects_steer_further_than_random_latents_do_on_average(finished, name):
    """The rate of one latent on 50 prompts is known to ±0.07: the first is judged in both
    directions and against both kinds of controls together."""
    arms, gaps = finished[1]["studies"][name]["steering"]["arms"], []
    for direction, sign in (("away", -1), ("toward", 1)):
        sets = arms[direction]["sets"]
        first = sets["Δ-attribution"]["latents"][0]["change"]
        for control in ("random", "random, matched"):
            gaps.append(sign * (first - sets[control]["mean_change"]))
            mean = sets["Δ-attribution"]["mean_change"]
            assert sign * mean > sign * sets[control]["mean_change"]
    assert min(gaps) > 0
    assert sum(gaps) / len(gaps) > 0.25


@pytest.mark.parametrize("name", NAMES)
def test_first_order_scores_agree_with_exact_ablation(finished, name):
    out, measured = finished
    check = measured["studies"][name]["ablation"]
    assert check["correlation"] > 0.9
    assert check["sign_agreement"] > 0.9
    assert len((out / name / "ablation.csv").read_text().splitlines()) == demo_study.ABLATED + 1


def test_the_studies_are_compared(finished):
    out, measured = finished
    runs = [deltalens.Attribution.load(out / name) for name in NAMES]
    found = deltalens.compare(*runs, top=demo.COMPARED)
    assert measured["comparison"]["same_top"] == found.same_top
    assert len(measured["comparison"]["shared"]) == len(found.shared)
    kept = json.loads((out / "comparison.json").read_text())
    assert kept["top"] == list(found.top)


def test_each_study_has_figures_and_a_report(finished):
    out, measured = finished
    assert measured["reports"] == [str(out / name / "report.html") for name in NAMES]
    for name in NAMES:
        page = (out / name / "report.html").read_text(encoding="utf-8")
        assert BEHAVIOURS[name].title in page
        for figure in ("figure-1.svg", "figure-1.png", "figure-2.svg", "figure-2.png"):
            assert (out / name / "figures" / figure).stat().st_size > 1000


def test_the_command_again_prints_the_same_and_samples_nothing(finished, monkeypatch, capsys):
    out, measured = finished
    before = {path: path.read_bytes() for path in out.rglob("steering/*.jsonl")}
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr("deltalens.trials.work.ArmWork._sampled", None)
    assert main(["demo", "--out", str(out)]) == 0
    printed = capsys.readouterr().out.replace("\n", " ")
    assert {path: path.read_bytes() for path in before} == before
    for study in measured["studies"].values():
        for line in study["steering"]["verdict"]:
            assert line in printed
    for report in measured["reports"]:
        assert report in printed


def test_another_seed_in_the_same_directory_is_refused(finished, capsys):
    out, _ = finished
    assert main(["demo", "--out", str(out), "--seed", "1"]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()[-1:]) == 1
