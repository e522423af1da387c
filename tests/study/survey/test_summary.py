"""What a survey's summary says, against brute force over its runs."""

from __future__ import annotations

import json
import math
import random
from itertools import combinations

import pytest
import torch

from deltalens.study import Survey
from deltalens.study.survey.multiplicity import holm
from deltalens.study.survey.summary import summary
from deltalens.study.survey.words import multiplicity_sentences, place_label
from helpers.tiny_survey import behaviours, decoders, make_survey

PAIRS = (10, 9, 6)

pytestmark = pytest.mark.filterwarnings("ignore:.*first order disagrees")


@pytest.fixture(scope="module")
def survey(tmp_path_factory) -> Survey:
    directory = tmp_path_factory.mktemp("summary") / "survey"
    make_survey(directory, behaviours=behaviours(*PAIRS), decoders=decoders(60), k=20)
    return Survey.load(directory)


def rejected(p_values: list[float], level: float) -> set[int]:
    """Holm's procedure as he wrote it: step down until one is too large."""
    left = sorted(range(len(p_values)), key=lambda n: p_values[n])
    found: set[int] = set()
    while left and p_values[left[0]] <= level / len(left):
        found.add(left.pop(0))
    return found


@pytest.mark.parametrize("seed", range(50))
def test_holm_rejects_what_the_step_down_procedure_rejects(seed):
    draw = random.Random(seed)
    p_values = [round(draw.random() ** 4, 3) for _ in range(draw.randrange(1, 12))]
    adjusted = holm(p_values)
    for level in (0.001, 0.01, 0.05, 0.2, 0.7):
        assert {n for n, p in enumerate(adjusted) if p <= level + 1e-12} == rejected(
            p_values, level + 1e-12
        )
    assert holm([]) == []


def test_studies_are_counted_by_their_own_p_values(survey):
    found = summary(survey)
    assert len(found["studies"]) == 9
    smallest = []
    for key, study in zip(survey, found["studies"], strict=True):
        p_value = survey[key].p_value
        assert (study["behaviour"], study["site"]) == key
        assert study["stand_out"] == int((p_value <= 0.05).sum())
        assert study["smallest"] == float(p_value.min())
        assert study["stand_out_across"] == int((p_value <= 0.05 / 9).sum())
        assert study["run"] == survey.runs[key]
        assert [latent["latent"] for latent in study["best"]] == survey[key].latents[:5].tolist()
        smallest.append(study["smallest"])
    assert [study["adjusted"] for study in found["studies"]] == holm(smallest)
    overall = found["multiplicity"]
    assert overall["stand_out"] == sum(p <= 0.05 for p in smallest) > 0
    assert overall["stand_out_across"] == len(rejected(smallest, 0.05))
    reach = [9 / 2 ** study["pairs"] for study in found["studies"]]
    assert sorted({study["pairs"] for study in found["studies"]}) == sorted(PAIRS)
    assert overall["out_of_reach"] == sum(p > 0.05 for p in reach) == 3
    assert overall["smallest_possible"] == pytest.approx(min(reach))
    assert overall["flips_needed"] == 179
    assert 9 / (1 + 179) <= 0.05 < 9 / (1 + 178)


def test_shared_latents_by_brute_force(survey):
    found = summary(survey)
    assert [place["layer"] for place in found["shared"]] == [0, 1, 2]
    shared_at_all = 0
    for place in found["shared"]:
        runs = {key[0]: survey[key] for key in survey if key[1] == place["site"]}
        listed = {name: run.latents.tolist() for name, run in runs.items()}
        several = {
            latent: [name for name in listed if latent in listed[name]]
            for latents in listed.values()
            for latent in latents
        }
        several = {latent: names for latent, names in several.items() if len(names) > 1}
        shared_at_all += len(several)
        assert {item["latent"] for item in place["latents"]} == set(several)
        for item in place["latents"]:
            assert [one["behaviour"] for one in item["in"]] == several[item["latent"]]
            pushes = []
            for one in item["in"]:
                row = listed[one["behaviour"]].index(item["latent"])
                assert one["rank"] == row + 1
                assert one["push"] == float(runs[one["behaviour"]].push[row])
                pushes.append(one["push"] > 0)
            assert item["same_push"] == (len(set(pushes)) == 1)
        for pair, (a, b) in zip(place["pairs"], combinations(listed, 2), strict=True):
            assert pair["behaviours"] == [a, b]
            assert pair["shared"] == len(set(listed[a]) & set(listed[b]))
            assert pair["expected"] == pytest.approx(20 * 20 / 60)
    assert shared_at_all > 0


def test_the_file_has_what_the_summary_says(survey):
    stored = json.loads((survey.directory / "survey.json").read_text())
    assert stored == json.loads(json.dumps(summary(survey)))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tested": 0}, "was not tested in any study"),
        ({"out_of_reach": 0, "smallest_possible": 0.024}, "no smaller than 0.024"),
        ({"out_of_reach": 24}, "No study can stand out over all 24"),
        ({"out_of_reach": 20}, "4 of 24 studies can stand out over all 24: sign flips"),
        ({}, "5 of 24 studies have a latent that stands out (p ≤ 0.05)"),
        ({"stand_out_across": 1}, "over all 24 together (Holm) 1 does."),
    ],
)
def test_sentences(changes, said):
    found = {
        "tested": 24,
        "stand_out": 5,
        "stand_out_across": 2,
        "out_of_reach": 0,
        "smallest_possible": 0.02,
        "flips_needed": 479,
        **changes,
    }
    assert said in " ".join(multiplicity_sentences(found))


@pytest.mark.parametrize(
    ("site", "sae", "label"),
    [
        ("blocks.12.hook_resid_post", None, "12"),
        ("blocks.12.hook_mlp_out", None, "12 mlp_out"),
        ("blocks.12.hook_resid_post", "16k", "12 · 16k"),
    ],
)
def test_places_have_short_names(site, sae, label):
    assert place_label({"site": site, "sae": sae, "layer": 12}) == label


def test_what_was_not_tested_is_no_part_of_the_family(tmp_path):
    make_survey(tmp_path, flips=0)
    found = summary(Survey.load(tmp_path))
    assert found["multiplicity"]["tested"] == 0
    assert all(math.isnan(study["adjusted"]) for study in found["studies"])
    assert torch.tensor([study["stand_out"] for study in found["studies"]]).sum() == 0
