"""What the page is made of: the document, its sentences, its size, and the command."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deltalens.cli.main import main
from deltalens.errors import InputError
from deltalens.report import write_figures, write_report
from deltalens.report.document import as_script_data, report_document
from deltalens.report.evidence import gather
from deltalens.report.findings import findings
from deltalens.report.packing import pack, packed
from deltalens.report.settings_part import settings_document
from deltalens.report.text import place_name, readable
from deltalens.trials.rates import Tally
from deltalens.trials.result import (
    ACTIVATION,
    ATTRIBUTION,
    RANDOM,
    Arm,
    Candidate,
    Curve,
    Point,
    SweepResult,
)
from helpers.finished_run import (
    HOSTILE,
    add_everything,
    hostile_texts,
    make_run,
)
from helpers.report_page import carried, unpack, written


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("document") / "run"
    add_everything(run, make_run(run, behaviour="bad advice"))
    return run


def test_what_stands_out_leads_the_findings(tmp_path: Path) -> None:
    sentence = "No latent stands out: this ranking is what chance gives."
    make_run(tmp_path / "tested", significance={"sentence": sentence})
    make_run(tmp_path / "earlier")
    assert findings(gather(tmp_path / "tested"))[0] == sentence
    assert findings(gather(tmp_path / "earlier"))[0].startswith("Latent ")


def test_every_latent_has_what_the_run_says_of_it(full: Path) -> None:
    evidence = gather(full)
    document = written(write_report(full))
    latents = evidence.attribution.latents.tolist()
    assert [one["latent"] for one in document["latents"]] == [*latents, 901, 902]
    first, last = document["latents"][0], document["latents"][-1]
    assert first["score"] == float(evidence.attribution.scores[0])
    assert first["ablation"] == list(evidence.ablation[latents[0]])
    assert (last["rank"], last["sets"]) == (None, [ACTIVATION])
    assert set(last["steering"]) == {"away", "toward"}
    assert "steering" not in document["latents"][11]
    assert "names" not in document["latents"][4]


def test_side_effects_are_beside_every_strength(full: Path) -> None:
    found = written(write_report(full))
    assert found["steering"]["arms"]["away"]["unsteered"]["beside"]["loss"] == 3
    steered = [one["steering"] for one in found["latents"] if "steering" in one]
    points = [point for one in steered for arm in one.values() for point in arm["points"]]
    assert len(points) > 10
    for point in points:
        rise, low, high = point["beside"]["rise"]
        assert low < rise < high
        assert point["beside"]["marked"] == (rise > 0.1)
        assert (point["beside"]["length"], point["beside"]["cut"]) == (12.5, 0.3)
    assert {point["beside"]["marked"] for point in points} == {True, False}


def test_completions_of_a_card_are_those_of_the_chosen_strength(full: Path) -> None:
    evidence = gather(full)
    assert evidence.steering is not None
    arm = evidence.steering.result.arms["away"]
    candidate = evidence.steering.result.sets[ATTRIBUTION][2]
    strength = arm.chosen(candidate).strength
    shown = written(write_report(full))["latents"][2]["steering"]["away"]["completions"]
    assert sorted(shown, key=int) == ["0", "1", "2", "3"]
    for key, (completion, verdict) in evidence.steering.graded["away"].items():
        if (key.latent, key.strength) == (candidate.latent, strength) and key.prompt < 4:
            assert shown[str(key.prompt)]["text"] == completion.text
            assert shown[str(key.prompt)]["label"] == verdict.label


def test_the_last_attempt_at_a_sample_is_shown(full: Path, tmp_path: Path) -> None:
    evidence = gather(full)
    assert evidence.steering is not None
    graded = evidence.steering.graded["away"]
    key = next(key for key in graded if key.latent is None and key.prompt == 0)
    completion, verdict = graded[key]
    later = replace(completion, text="asked again", key=key._replace(attempt=1))
    graded[later.key] = later, verdict
    unsteered = report_document(evidence)["steering"]["arms"]["away"]["completions"]
    assert unsteered[0]["text"] == "asked again"


def test_data_cannot_end_its_element(tmp_path: Path) -> None:
    texts = hostile_texts()
    add_everything(tmp_path / "run", make_run(tmp_path / "run", texts=texts), texts)
    document = report_document(gather(tmp_path / "run"))
    text = as_script_data(packed(document))
    assert text.isascii()
    assert not set("<>&") & set(text)
    assert json.loads(text)["latents"][3]["promotes"] == document["latents"][3]["promotes"]
    page = write_report(tmp_path / "run").read_text()
    assert page.lower().count("<script") == 2
    assert page.lower().count("</script") == 2
    assert not re.search(r"(?:src|href)=[\"']?http|url\((?!#)|@import", page)


def result(steered: Tally, random: Tally) -> SweepResult:
    curves = [
        Curve(latent, 1, [Point(-0.4, tally)], 0) for latent, tally in ((7, steered), (8, random))
    ]
    arm = Arm("away", "model", 2.0, 0.1, Tally(30, 70, 0, 0, 0, 100), curves)
    sets = {ATTRIBUTION: [Candidate(7, 1)], RANDOM: [Candidate(8, 1)]}
    return SweepResult(sets, {"away": arm}, {})


@pytest.mark.parametrize(
    ("steered", "chosen", "said"),
    [
        (
            Tally(1, 19, samples=20),
            0,
            "to 5.0% [0.9, 23.6; n\u00a0=\u00a020] at strength 0.4, further than each of 1",
        ),
        (Tally(5, 15, samples=20), 0, "no further than the furthest of 1 random latents"),
        (Tally(unparsable=20, samples=20), 0, "left nothing that could be graded"),
        (Tally(1, 19, samples=20), None, "within the incoherence budget at no strength"),
    ],
)
def test_findings_say_what_came_out(
    steered: Tally, chosen: int | None, said: str, full: Path
) -> None:
    found = result(steered, Tally(4, 16, samples=20))
    curve = found.arms["away"].curves[0]
    found.arms["away"].curves[0] = replace(curve, chosen=chosen)
    evidence = gather(full)
    assert evidence.steering is not None
    steering = replace(evidence.steering, result=found)
    sentences = findings(replace(evidence, steering=steering))
    assert "by Δ-attribution among 500 latents: 0.031 ± " in sentences[0]
    assert said in sentences[1]
    assert sentences[-1].startswith("Ablated for real, 5 of the 5 latents")


def test_verdicts_are_among_the_findings_and_on_the_cards(full: Path) -> None:
    evidence = gather(full)
    assert evidence.steering is not None
    result = evidence.steering.result
    said = findings(evidence)
    document = report_document(evidence)
    for direction, verdict in result.verdicts.items():
        for name, found in verdict.sets.items():
            (sentence,) = [one for one in said if one.startswith(f"{name}, steered {direction}")]
            assert f"p = {found.p:.2g}" in sentence
        latents = [item for found in verdict.sets.values() for item in found.latents]
        for card in document["latents"]:
            if "steering" in card and card["steering"][direction]["compared"]:
                compared = card["steering"][direction]["compared"]
                sign = card["steering"][direction]["sign"]
                (item, *_) = [i for i in latents if (i.latent, i.sign) == (card["latent"], sign)]
                assert (compared["change"], compared["p"]) == (item.change, item.p)
                assert compared["strength"] == verdict.strength
    assert document["latents"][5]["steering"]["away"]["compared"]["p"] is None


def test_settings_are_complete_and_flat(full: Path) -> None:
    study, examples, steering = settings_document(gather(full))
    assert ["options.normalize", "True"] in study["rows"]
    assert ["fingerprints.sae", "abc"] in study["rows"]
    assert ["options.top", "3"] in examples["rows"]
    assert ["judge.id", "letters-1234"] in steering["rows"]
    assert ["max_incoherence", "0.1"] in steering["rows"]


@pytest.mark.parametrize(("text", "shown"), [(t, s) for t, s in HOSTILE.items() if s])
def test_what_hides_or_acts_is_shown_as_escapes(text: str, shown: str) -> None:
    assert readable(text) == shown


def test_lines_stay_lines_and_long_texts_are_cut() -> None:
    assert readable("a\nb\tc") == "a\nb→c"
    assert readable("abcdef", 4) == "abcd … [2 more characters]"
    assert readable("abcd", 4) == "abcd"


@pytest.mark.parametrize(
    ("place", "shown"),
    [
        ("google/gemma-2-2b", "google/gemma-2-2b"),
        ("runs/advice", "runs/advice"),
        ("/home/someone/models/tuned", "tuned"),
        ("/", ""),
    ],
)
def test_places_are_shown_without_the_folders_above(place: str, shown: str) -> None:
    assert place_name(place) == shown


def test_the_table_needs_nothing_that_is_packed(full: Path) -> None:
    page = write_report(full)
    rows, whole = carried(page)["latents"], written(page)["latents"]
    assert whole == json.loads(json.dumps(report_document(gather(full))))["latents"]
    for row, one in zip(rows, whole, strict=True):
        for name in ("latent", "rank", "score", "p_value", "push", "presence", "promotes"):
            assert row.get(name) == one.get(name)
        assert row.get("names", []) == [{"name": n["name"]} for n in one.get("names", [])]
        for direction, arm in row.get("steering", {}).items():
            assert arm["change"] == one["steering"][direction]["change"]
            assert arm["beyond"] == one["steering"][direction]["beyond"]


def test_cards_are_cut_before_a_page_is_too_large(full: Path, monkeypatch: Any) -> None:
    document = report_document(gather(full))
    sizes = [len(pack(one)) for one in document["latents"]]
    monkeypatch.setattr("deltalens.report.packing.CARDS_MOST", sum(sizes[:4]))
    found = packed(document)
    cards = list(map(unpack, found["cards"]))
    assert ["examples" in card for card in cards] == [True] * 4 + [False] * 10
    assert all("per_pair" in card for card in cards[:12])
    assert found["left_out"][-1].startswith("the cards of the last 8 latents are without examples")


def test_a_large_study_stays_a_small_page(tmp_path: Path) -> None:
    made = make_run(tmp_path / "run", latents=100, pairs=148, tokens=500)
    add_everything(tmp_path / "run", made)
    page = write_report(tmp_path / "run")
    assert page.stat().st_size < 4e6
    document = written(page)
    assert len(document["pairs"]) == 148
    assert document["left_out"] == []


def test_what_is_left_out_is_said(tmp_path: Path) -> None:
    make_run(tmp_path / "run", latents=1020, pairs=201, tokens=2, dictionary=2000)
    document = written(write_report(tmp_path / "run"))
    assert len(document["latents"]) == 1000
    assert document["left_out"] == [
        "the first 1000 of 1,020 latents are shown",
        "the first 200 of 201 pairs are shown",
    ]


def test_long_prompts_show_the_tokens_around_the_largest_effect(tmp_path: Path) -> None:
    made = make_run(tmp_path / "run", latents=2, pairs=1, tokens=1500)
    document = written(write_report(tmp_path / "run"))
    (shown,) = document["latents"][0]["per_token"]
    assert made.token_effects is not None
    peak = int(made.token_effects.values[0][:, 0].abs().argmax())
    assert len(shown["values"]) == 600
    assert shown["start"] <= peak < shown["start"] + 600
    assert max(map(abs, shown["values"])) == pytest.approx(
        float(made.token_effects.values[0][peak, 0].abs()), rel=1e-3
    )


def test_the_command_prints_the_page(full: Path, tmp_path: Path, capsys: Any) -> None:
    assert main(["report", str(full), "--out", str(tmp_path / "page.html")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'page.html'}\n"
    assert (tmp_path / "page.html").exists()
    assert main(["report", str(full), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["report"] == str(full / "report.html")
    assert said["figures"] == sorted(str(path) for path in write_figures(full))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("metadata.json", "is no complete run"),
        ("per_pair.safetensors", "is damaged"),
        ("steering/prompts.jsonl", "cannot read the sweep's prompts"),
    ],
)
def test_a_run_that_is_incomplete_is_refused(
    damage: str, said: str, tmp_path: Path, capsys: Any
) -> None:
    add_everything(tmp_path / "run", make_run(tmp_path / "run"))
    (tmp_path / "run" / damage).unlink()
    assert main(["report", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_a_damaged_ablation_is_refused(tmp_path: Path) -> None:
    make_run(tmp_path / "run")
    (tmp_path / "run" / "ablation.csv").write_text("rank,latent\n1,7\n")
    with pytest.raises(InputError, match=r"ablation.csv is damaged"):
        write_report(tmp_path / "run")
