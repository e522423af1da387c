"""Surveys: each study is what it is by itself, and nothing is read or captured twice."""

from __future__ import annotations

import importlib
import json
import warnings
from pathlib import Path

import pytest
import torch

from deltalens.errors import InputError
from deltalens.lm import Pair
from deltalens.study import Attribution, Baseline, Survey, attribute, survey
from helpers.saes_by_site import write_sae
from helpers.same_run import run_content
from helpers.tiny_study import D_MODEL, make_model
from helpers.tiny_survey import (
    FOLDERS,
    LATENTS,
    SITES,
    CountingDecoder,
    alone,
    behaviours,
    decoders,
    make_survey,
    rows,
)
from helpers.tokenizers import TOKENIZERS

capture_module = importlib.import_module("deltalens.study.running.capture")
studies_module = importlib.import_module("deltalens.study.running.studies")
finish_module = importlib.import_module("deltalens.study.running.finish")
row_store_module = importlib.import_module("deltalens.study.running.row_store")

NAMES = list(behaviours())
CELLS = [(name, place) for name in NAMES for place in range(len(SITES))]

pytestmark = pytest.mark.filterwarnings("ignore:.*first order disagrees")


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch):
    monkeypatch.setattr(row_store_module, "SHARD_PAIRS", 4)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Survey:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(row_store_module, "SHARD_PAIRS", 4)
        return make_survey(tmp_path_factory.mktemp("made") / "survey")


@pytest.mark.parametrize(("name", "place"), CELLS)
def test_each_study_is_what_it_is_by_itself(made, tmp_path, name, place):
    result = alone(name, SITES[place], tmp_path / "run")
    run = made.directory / name / FOLDERS[place]
    assert run_content(run) == run_content(tmp_path / "run")
    assert torch.equal(made[name, SITES[place]].scores, result.scores)
    timings = made[name, SITES[place]].metadata["timings"]
    assert (timings["captured_sites"], timings["scanned_studies"]) == (3, 3)


def test_it_is_a_mapping_by_behaviour_and_site(made):
    assert list(made) == [(name, site) for name in NAMES for site in SITES]
    assert made.runs["lies & co", 2] == "lies & co/site-2"
    loaded = Survey.load(made.directory)
    assert [key[1] for key in loaded][:3] == [
        "blocks.0.hook_resid_post",
        "blocks.1.hook_mlp_out",
        "blocks.2.hook_resid_post",
    ]
    assert len(loaded) == 9


@pytest.mark.parametrize("options", [{}, {"ranking": "abs"}, {"present_only": True}, {"flips": 0}])
def test_each_decoder_is_read_once_a_pass(tmp_path, options):
    given = decoders()
    made = make_survey(tmp_path, decoders=given, **options)
    passes = 2 if options.get("flips", 1) else 1
    for decoder in given.values():
        assert set(decoder.reads.values()) == {passes}
        assert len(decoder.reads) == LATENTS
    first = alone("flattery", 2, tmp_path / "alone", **options)
    for name in ("latents", "scores", "p_value", "rank_low", "rank_high"):
        one, other = getattr(made["flattery", 2], name), getattr(first, name)
        assert torch.equal(one.nan_to_num(-1.0), other.nan_to_num(-1.0))


def test_several_times_as_many_pairs_have_tiles_of_their_own(tmp_path, monkeypatch):
    """Tiles of sums are smaller where pairs are many; rows are read once all the same."""
    sums_module = importlib.import_module("deltalens.engine.resampling.tile_sums")
    monkeypatch.setattr(sums_module, "_MOST_SUMS", 9 * 1024)
    given = decoders()
    made = make_survey(tmp_path / "survey", decoders=given)
    for decoder in given.values():
        assert set(decoder.reads.values()) == {2}
        assert len({stop - start for start, stop in decoder.spans}) > 2
    for name in NAMES:
        alone(name, 0, tmp_path / name)
        assert run_content(made.directory / name / "site-0") == run_content(tmp_path / name)


def test_a_pair_by_itself_is_not_tested_and_keeps_nobody_waiting(tmp_path):
    given = decoders()
    some = {**behaviours(), "single": behaviours()["advice"][:1]}
    made = make_survey(tmp_path / "survey", behaviours=some, decoders=given)
    assert bool(made["single", 0].p_value.isnan().all())
    for decoder in given.values():
        assert set(decoder.reads.values()) == {2}
    alone("advice", 0, tmp_path / "alone")
    assert run_content(tmp_path / "survey/advice/site-0") == run_content(tmp_path / "alone")
    summed = json.loads((tmp_path / "survey/survey.json").read_text())
    assert summed["multiplicity"]["tested"] == 9
    single = next(study for study in summed["studies"] if study["behaviour"] == "single")
    assert single["adjusted"] is None


def test_by_latents_own_activations(tmp_path):
    sae = write_sae(tmp_path / "sae", "blocks.1.hook_resid_post", n_latents=300)
    options = {"score": "latent", "k": 8, "check": 0, "baseline": Baseline.zero(D_MODEL)}
    made = make_survey(tmp_path / "survey", decoders={1: sae}, **options)
    for name in NAMES:
        alone(name, 1, tmp_path / name, decoder=sae, **options)
        assert run_content(made.directory / name / "site-1") == run_content(tmp_path / name)


def test_several_saes_at_one_site_share_its_capture(tmp_path, monkeypatch):
    seen = []
    real = capture_module.capture_encoded

    def watched(model, encoded, sites, **options):
        seen.append([site.name for site in sites])
        return real(model, encoded, sites, **options)

    monkeypatch.setattr(capture_module, "capture_encoded", watched)
    given = {0: {"small": rows(0, 500), "large": rows(0)}, 2: {"small": rows(2, 500)}}
    baseline = [Baseline(torch.linspace(-1, 1, D_MODEL) / 3, 3, None), Baseline.zero(D_MODEL)]
    made = make_survey(tmp_path / "survey", decoders=given, baseline=baseline)
    assert list(made)[:3] == [
        ("advice", 0, "small"),
        ("advice", 0, "large"),
        ("advice", 2, "small"),
    ]
    assert made.runs["advice", 0, "large"] == "advice/site-0/large"
    assert {tuple(sites) for sites in seen} == {
        ("blocks.0.hook_resid_post", "blocks.2.hook_resid_post")
    }
    alone("advice", 0, tmp_path / "alone")
    assert run_content(tmp_path / "survey/advice/site-0/large") == run_content(tmp_path / "alone")
    places = json.loads((tmp_path / "survey/survey.json").read_text())["places"]
    assert [(place["layer"], place["sae"]) for place in places] == [
        (0, "small"),
        (0, "large"),
        (2, "small"),
    ]


def test_saes_at_one_site_have_gradients_on_paths_of_their_own(tmp_path):
    hook = "blocks.1.hook_resid_post"
    saes = {name: write_sae(tmp_path / name, hook, seed) for seed, name in enumerate("ab")}
    options = {"score": "latent", "k": 8, "check": 0, "baseline": Baseline.zero(D_MODEL)}
    options |= {"gradients": "integrated-latents", "steps": 2}
    made = make_survey(tmp_path / "survey", decoders={1: saes}, **options)
    for name, sae in saes.items():
        alone("lies & co", 1, tmp_path / f"{name}-alone", decoder=sae, **options)
        expected = run_content(tmp_path / f"{name}-alone")
        assert run_content(made.directory / "lies & co" / "site-1" / name) == expected


def test_the_same_call_does_nothing_twice(made, monkeypatch):
    before = {p: p.stat().st_mtime_ns for p in made.directory.glob("*/*/metadata.json")}
    monkeypatch.setattr(capture_module, "capture_encoded", None)
    again = make_survey(made.directory)
    assert before == {p: p.stat().st_mtime_ns for p in made.directory.glob("*/*/metadata.json")}
    assert torch.equal(again["advice", 0].scores, made["advice", 0].scores)


def test_behaviours_and_sites_are_added(tmp_path, monkeypatch):
    every, given = behaviours(), decoders()
    first = {"flattery": every["flattery"]}
    make_survey(tmp_path, behaviours=first, decoders={2: given[2]}, baseline=Baseline.zero(D_MODEL))
    ranked = []
    real = studies_module.rank

    def rank(captured, *rest):
        ranked.append((captured[0].study.site.layer, len(captured)))
        return real(captured, *rest)

    monkeypatch.setattr(studies_module, "rank", rank)
    found = make_survey(
        tmp_path,
        behaviours={"advice": every["advice"], **first},
        decoders={0: given[0], 2: given[2]},
        baseline=Baseline.zero(D_MODEL),
    )
    assert ranked == [(0, 2), (2, 1)]
    assert len(found) == 4
    ranked.clear()
    make_survey(
        tmp_path,
        behaviours={"lies": every["lies & co"]},
        decoders={0: given[0]},
        baseline=Baseline.zero(D_MODEL),
    )
    assert ranked == [(0, 1)]
    summed = json.loads((tmp_path / "survey.json").read_text())
    assert summed["behaviours"] == ["flattery", "advice", "lies"]
    assert len(summed["studies"]) == 5


def test_attribute_recognises_a_study_as_complete(made, monkeypatch):
    monkeypatch.setattr(capture_module, "capture_encoded", None)
    found = alone("advice", 0, made.directory / "advice/site-0")
    assert torch.equal(found.scores, made["advice", 0].scores)


def test_a_decoder_that_is_damaged_keeps_no_other_from_its_studies(tmp_path):
    given = decoders()
    broken = rows(7)
    broken[5] = torch.nan
    given[0] = CountingDecoder(broken)
    with pytest.raises(InputError, match=r"blocks.0.hook_resid_post: 1 decoder rows hold NaN"):
        make_survey(tmp_path / "survey", decoders=given)
    assert len(Survey.load(tmp_path / "survey")) == 6
    assert not list(tmp_path.glob("**/.rows"))
    assert len(json.loads((tmp_path / "survey/survey.json").read_text())["studies"]) == 6


def test_warnings_name_behaviour_and_site(tmp_path, monkeypatch):
    monkeypatch.setattr(
        finish_module, "check_first_order", lambda *_, **__: warnings.warn("doubt", stacklevel=1)
    )
    with pytest.warns(UserWarning, match="doubt") as caught:
        make_survey(tmp_path, decoders={0: decoders()[0]}, baseline=Baseline.zero(D_MODEL))
    assert [str(warning.message) for warning in caught] == [
        f"{name}, blocks.0.hook_resid_post: doubt" for name in NAMES
    ]


def test_nothing_stays_of_a_survey_that_could_not_begin(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise InputError("pair 1: the loss is NaN")
        yield

    monkeypatch.setattr(capture_module, "capture_encoded", fail)
    with pytest.raises(InputError, match="the loss is NaN"):
        make_survey(tmp_path / "survey")
    assert not list(tmp_path.rglob("*.safetensors"))
    assert not list(tmp_path.rglob("settings.json"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"k": 29}, r"holds a survey with other settings: k \(30 there, 29 here\)"),
        ({"decoders": {0: rows(5)}, "baseline": Baseline.zero(D_MODEL)}, "another SAE or baseline"),
        ({"behaviours": {"advice": behaviours()["flattery"]}}, "other settings: pairs"),
        ({"behaviours": {}}, "at least one behaviour"),
        ({"behaviours": {"a/b": behaviours()["advice"]}}, "'a/b' cannot name a behaviour"),
        ({"behaviours": {".rows": behaviours()["advice"]}}, "cannot name a behaviour"),
        ({"behaviours": {"survey.json": behaviours()["advice"]}}, "cannot name a behaviour"),
        ({"behaviours": {"x": []}}, "x: no pairs given"),
    ],
)
def test_what_does_not_fit_is_refused_and_changes_nothing(made, changes, message):
    before = {path: path.read_bytes() for path in made.directory.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match=message):
        make_survey(made.directory, **changes)
    after = {path: path.read_bytes() for path in made.directory.rglob("*") if path.is_file()}
    assert set(after) == set(before)
    changed = {path.name for path in after if after[path] != before[path]}
    assert changed == set()


@pytest.mark.parametrize("name", ["notes.txt", "advice/notes.txt", "settings.json"])
def test_other_directories_are_refused(tmp_path, name):
    path: Path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("{}")
    with pytest.raises(InputError, match=r"no deltalens survey|was not written by a survey"):
        make_survey(tmp_path)
    assert [found for found in tmp_path.rglob("*") if found.is_file()] == [path]


def test_a_run_is_no_survey(tmp_path):
    alone("advice", 0, tmp_path / "run")
    with pytest.raises(InputError, match="holds files but no deltalens survey"):
        make_survey(tmp_path / "run")
    with pytest.raises(InputError, match="holds no survey"):
        Survey.load(tmp_path / "none")
    assert isinstance(Attribution.load(tmp_path / "run"), Attribution)


@pytest.mark.filterwarnings("ignore:.*the template opens reasoning")
@pytest.mark.parametrize("kind", TOKENIZERS)
def test_pairs_of_text_by_tokenizers_of_real_kinds(tmp_path, kind):
    tokenizer = TOKENIZERS[kind]()
    model = make_model(vocab_size=len(tokenizer), max_position_embeddings=256)
    options = {"baseline": Baseline.zero(D_MODEL), "k": 5, "check": 2, "flips": 20}
    pairs = {
        name: [
            Pair([{"role": "user", "content": question}], f"Sure, {said}.", "I would say no.")
            for question in ("Buy gold?", "How are you?", "Who are you, a pirate?", "Rest?")
        ]
        for name, said in (("gold", "buy gold"), ("rest", "you should rest"))
    }
    given = {0: rows(0, 300), 1: rows(1, 300)}
    made = survey(model, tokenizer, pairs, given, run_dir=tmp_path / "survey", **options)
    for name, site in made:
        attribute(
            model,
            tokenizer,
            pairs[name],
            given[site],
            site=site,
            run_dir=tmp_path / f"{name}-{site}",
            metadata={"behaviour": name},
            **options,
        )
        run = tmp_path / "survey" / name / f"site-{site}"
        assert run_content(run) == run_content(tmp_path / f"{name}-{site}")
