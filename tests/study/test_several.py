"""Studies of several sites at once: each is what it is by itself."""

from __future__ import annotations

import importlib
import json
import warnings
from pathlib import Path

import pytest
import torch

from deltalens.errors import InputError
from deltalens.lm import Sinks, resolve_site
from deltalens.lm.capture import capture_encoded
from deltalens.study import (
    Attribution,
    Baseline,
    attribute,
    delta_activation,
    delta_activation_of_pairs,
    mean_activation,
    study_moments,
)
from helpers.saes_by_site import write_saes
from helpers.tiny_study import D_MODEL, make_model, make_pairs

capture_module = importlib.import_module("deltalens.study.running.capture")
row_store_module = importlib.import_module("deltalens.study.running.row_store")

SITES = ["blocks.2.hook_mlp_out", 0, "blocks.1.hook_resid_mid"]
FOLDERS = ["site-2-mlp_out", "site-0", "site-1-resid_mid"]
TENSORS = ("latents", "scores", "push", "presence", "positive", "negative", "stderr", "p_value")
TENSORS += ("rank_low", "rank_high", "error_bound", "per_pair", "all_scores")


class Cut(Exception):
    """What interrupts a run."""


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch):
    monkeypatch.setattr(row_store_module, "SHARD_PAIRS", 3)


@pytest.fixture(scope="module")
def model():
    return make_model()


def decoder(seed: int, rows: int = 60) -> torch.Tensor:
    return torch.randn(rows, D_MODEL, generator=torch.Generator().manual_seed(seed))


DECODERS = {site: decoder(seed, 50 + seed) for seed, site in enumerate(SITES)}
BASELINES = {
    site: Baseline(torch.full((D_MODEL,), 0.1 * n), 3, None) for n, site in enumerate(SITES)
}


@pytest.fixture
def study(model):
    def run(sites=SITES, run_dir: Path | None = None, **changes):
        given = {
            "decoder": DECODERS,
            "baseline": BASELINES,
            "k": 9,
            "check": 2,
            "save_scores": True,
            "sinks": Sinks(1.5),
            **changes,
        }
        return attribute(model, None, make_pairs(7), site=sites, run_dir=run_dir, **given)

    return run


@pytest.fixture
def alone(study, model):
    def run(site, run_dir: Path | None = None):
        return study(site, run_dir, decoder=DECODERS[site], baseline=BASELINES[site])

    return run


@pytest.fixture
def captured(monkeypatch):
    """(pair, site) of what went through the model; ``captured.fail_at`` cuts it at a pair."""

    class Captured(list):
        fail_at: str | None = None

        def __call__(self, model, encoded, sites, **options):
            for found in capture_encoded(model, encoded, sites, **options):
                pair = found.note.pair
                if pair.id == self.fail_at:
                    raise Cut
                self.extend((pair.id, site.name) for site in sites)
                yield found

    watched = Captured()
    monkeypatch.setattr(capture_module, "capture_encoded", watched)
    return watched


def assert_same(found: Attribution, expected: Attribution) -> None:
    for name in TENSORS:
        one, other = getattr(found, name), getattr(expected, name)
        assert torch.equal(one, other) or bool((one.isnan() & other.isnan()).all()), name
    assert all(map(torch.equal, found.token_effects.values, expected.token_effects.values))
    assert torch.equal(found.directions.pair_push, expected.directions.pair_push)
    for key in ("options", "fingerprints", "counts", "sinks", "first_order", "mean_losses"):
        assert found.metadata[key] == expected.metadata[key], key


pytestmark = pytest.mark.filterwarnings("ignore:.*first order disagrees")


def test_each_is_what_it_is_by_itself(study, alone):
    results = study()
    assert list(results) == SITES
    limits = set()
    for site, result in results.items():
        assert_same(result, alone(site))
        assert result.metadata["timings"]["captured_sites"] == 3
        limits.add(result.metadata["sinks"]["limit"])
    assert len(limits) == 3, "each site has sinks of its own"


def test_run_directories_are_ordinary_runs(study, alone, tmp_path):
    results = study(run_dir=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(FOLDERS)
    for site, folder in zip(SITES, FOLDERS, strict=True):
        loaded = Attribution.load(tmp_path / folder)
        assert_same(loaded, results[site])
        alone(site, tmp_path / f"alone-{folder}")
        files = {path.name for path in (tmp_path / folder).iterdir()}
        assert files == {path.name for path in (tmp_path / f"alone-{folder}").iterdir()}
        assert_same(alone(site, tmp_path / folder), loaded)  # one continues the other


def test_what_is_done_is_not_repeated(study, captured, tmp_path):
    study(SITES[:2], run_dir=tmp_path)
    assert len(captured) == 2 * 7
    captured.clear()
    results = study(run_dir=tmp_path)
    assert {site for _, site in captured} == {"blocks.1.hook_resid_mid"}
    captured.clear()
    again = study(run_dir=tmp_path)
    assert not captured
    for site in SITES:
        assert_same(again[site], results[site])


def test_a_cut_run_continues_to_the_same_bits(study, captured, tmp_path):
    whole = study()
    captured.clear()
    captured.fail_at = "p4"
    with pytest.raises(Cut):
        study(SITES[:2], run_dir=tmp_path)
    captured.clear()
    captured.fail_at = None
    results = study(run_dir=tmp_path)
    seen = {site: sorted(pair for pair, at in captured if at == site) for _, site in captured}
    everything = [f"p{number}" for number in range(7)]
    assert seen == {
        "blocks.2.hook_mlp_out": everything[3:],
        "blocks.0.hook_resid_post": everything[3:],
        "blocks.1.hook_resid_mid": everything,
    }
    for site in SITES:
        assert_same(results[site], whole[site])


def test_one_that_fails_keeps_none_of_the_others_from_its_result(study, captured, tmp_path):
    broken = DECODERS[SITES[1]].clone()
    broken[5] = torch.nan
    decoders = [DECODERS[SITES[0]], broken, DECODERS[SITES[2]]]
    with pytest.raises(InputError, match=r"^blocks.0.hook_resid_post: 1 decoder rows hold NaN"):
        study(run_dir=tmp_path, decoder=decoders)
    assert sorted(path.name for path in tmp_path.iterdir()) == [FOLDERS[2], FOLDERS[0]]
    captured.clear()
    study(run_dir=tmp_path)
    assert {site for _, site in captured} == {"blocks.0.hook_resid_post"}


def test_bad_activations_leave_nothing(study, model, tmp_path, monkeypatch):
    def fail(*args, **options):
        raise InputError("NaN")

    monkeypatch.setattr(capture_module, "capture_encoded", fail)
    with pytest.raises(InputError, match="NaN"):
        study(run_dir=tmp_path / "runs")
    assert not list((tmp_path / "runs").glob("*"))


def test_rows_are_removed_as_soon_as_a_site_is_done(study, tmp_path, monkeypatch):
    held = []
    studies_module = importlib.import_module("deltalens.study.running.studies")
    real = studies_module.rank

    def rank(*args):
        held.append(len(list(tmp_path.glob("*/.rows/000000.safetensors"))))
        return real(*args)

    monkeypatch.setattr(studies_module, "rank", rank)
    study(run_dir=tmp_path)
    assert held == [3, 2, 1]
    assert not list(tmp_path.glob("*/.rows"))


def test_warnings_name_their_site(study, monkeypatch):
    finish_module = importlib.import_module("deltalens.study.running.finish")
    monkeypatch.setattr(
        finish_module, "check_first_order", lambda *_, **__: warnings.warn("doubt", stacklevel=1)
    )
    with pytest.warns(UserWarning, match="doubt") as caught:
        study()
    assert [str(warning.message) for warning in caught] == [
        "blocks.2.hook_mlp_out: doubt",
        "blocks.0.hook_resid_post: doubt",
        "blocks.1.hook_resid_mid: doubt",
    ]


def test_one_baseline_may_serve_all(study, model):
    zero = Baseline.zero(D_MODEL)
    results = study(baseline=zero)
    for site in SITES:
        assert_same(results[site], study(site, decoder=DECODERS[site], baseline=zero))


def test_other_settings_are_refused_before_anything_runs(study, captured, tmp_path):
    study(SITES[1:], run_dir=tmp_path)
    captured.clear()
    with pytest.raises(InputError, match=r"site-0 holds a run with other settings: k \(9 there"):
        study(run_dir=tmp_path, k=8)
    assert not captured
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(FOLDERS[1:])


def test_a_single_run_is_no_place_for_several(study, alone, tmp_path):
    alone(0, tmp_path / "run")
    with pytest.raises(InputError, match="holds the run of a single site"):
        study(run_dir=tmp_path / "run")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"):
        study(run_dir=tmp_path / "file")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"decoder": decoder(0)}, "3 sites need a decoder each: a list in their order or a dict"),
        ({"decoder": [decoder(0)]}, "3 sites need a decoder each, got 1"),
        ({"baseline": [Baseline.zero(D_MODEL)] * 2}, "3 sites need a baseline each, got 2"),
        ({"baseline": {0: Baseline.zero(D_MODEL)}}, "no baseline for site 'blocks.2.hook_mlp_out'"),
        (
            {"decoder": [decoder(0), decoder(0)[:, :3], decoder(0)]},
            "SAE has d_model 3 but blocks.0",
        ),
        ({"decoder": [decoder(0), decoder(0)[:5], decoder(0)]}, "k"),
        ({"sites": []}, "no site given"),
        ({"sites": [0, "layer_0"]}, "name each site once"),
    ],
)
def test_refusals(study, changes, message, tmp_path):
    with pytest.raises(InputError, match=message):
        study(run_dir=tmp_path / "runs", **changes)
    assert not (tmp_path / "runs").exists()


def test_metadata_is_json(study, tmp_path):
    study(run_dir=tmp_path)
    said = json.loads((tmp_path / FOLDERS[0] / "metadata.json").read_text())
    assert said["site"]["name"] == "blocks.2.hook_mlp_out"


def test_baselines_of_several_sites_come_from_one_pass(model, tmp_path):
    texts = [[1, *(6 + i % 30 for i in range(n))] for n in (20, 3, 40, 9)]
    passes = []
    handle = model.model.layers[0].register_forward_hook(lambda *_: passes.append(1))
    names = [resolve_site(model, site).name for site in SITES]
    saes = dict(zip(SITES, write_saes(tmp_path, names).values(), strict=True))
    options = {"sinks": Sinks(1.5), "context": 30, "batch_tokens": 50}
    found = mean_activation(model, None, texts, site=SITES, sae=saes, **options)
    together, passes[:] = len(passes), []
    assert list(found) == SITES
    for site, baseline in found.items():
        expected = mean_activation(model, None, texts, site=site, sae=saes[site], **options)
        for name in ("mean", "latent_mean"):
            assert torch.equal(getattr(baseline, name), getattr(expected, name)), name
        for name in ("tokens", "site", "provenance", "sae", "median_norm"):
            assert getattr(baseline, name) == getattr(expected, name), name
    assert len(passes) == 3 * together
    handle.remove()
    assert len({baseline.median_norm for baseline in found.values()}) == 3


@pytest.mark.parametrize("held", [0, 1 << 30])
def test_moments_are_those_of_the_studies(study, model, monkeypatch, held):
    monkeypatch.setattr("deltalens.storage.in_order.HELD_BYTES", held)
    options = {"sinks": Sinks(1.5), "batch_tokens": 30}
    moments = study_moments(model, None, make_pairs(7), site=SITES, baseline=BASELINES, **options)
    results = study(batch_tokens=30)
    assert list(moments) == SITES
    for site, moment in moments.items():
        alone = study_moments(
            model, None, make_pairs(7), site=site, baseline=BASELINES[site], **options
        )
        assert torch.equal(moment.matrix, alone.matrix)
        assert torch.equal(moment.presence_direction, alone.presence_direction)
        top = moment.topk(DECODERS[site], 9, normalize=True)
        assert torch.equal(top.latents, results[site].latents)
        assert torch.equal(top.scores, results[site].scores)
        assert torch.equal(top.error_bound.double(), results[site].error_bound)


def assert_same_difference(found, expected) -> None:
    for name in ("latents", "difference", "mean", "mean_against", "frequency"):
        assert torch.equal(getattr(found, name), getattr(expected, name)), name
    assert found.metadata == expected.metadata


def test_delta_activation_of_several_sites(model, tmp_path):
    names = [resolve_site(model, site).name for site in SITES]
    saes = dict(zip(SITES, write_saes(tmp_path, names).values(), strict=True))
    other = make_model(seed=1)
    prompts = [[1, 7, 8, 9], [1, 10, 11], [1, 12, 13, 14, 15]]
    options = {"k": 5, "sinks": Sinks(1.5), "batch_tokens": 10}
    of_models = delta_activation(model, other, None, prompts, saes, site=SITES, **options)
    of_pairs = delta_activation_of_pairs(
        model, None, make_pairs(7), list(saes.values()), site=SITES, tokens="all", **options
    )
    assert list(of_models) == list(of_pairs) == SITES
    for site, sae in saes.items():
        alone = delta_activation(model, other, None, prompts, sae, site=site, **options)
        assert_same_difference(of_models[site], alone)
        alone = delta_activation_of_pairs(
            model, None, make_pairs(7), sae, site=site, tokens="all", **options
        )
        assert_same_difference(of_pairs[site], alone)
