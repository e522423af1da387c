"""A study's p-values and standard errors against every latent, pair and flip at once."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch

from deltalens.errors import InputError
from deltalens.sae.files import open_tensors
from deltalens.sae.stored import StoredDecoder
from deltalens.study import Attribution, Baseline, attribute
from deltalens.study.significance.flips import sign_flips
from helpers.tiny_study import D_MODEL, SITE, effects_naively, make_model, make_pairs

N, K, PAIRS = 150, 12, 7


@pytest.fixture(scope="module")
def model():
    return make_model(torch.float64)


@pytest.fixture(scope="module")
def decoder():
    draw = torch.Generator().manual_seed(5)
    rows = torch.randn(N, D_MODEL, generator=draw)
    return rows * torch.rand(N, 1, generator=draw).mul(3)


@pytest.fixture(scope="module")
def baseline():
    mean = torch.randn(D_MODEL, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    return Baseline(mean, 10, f"model.layers.{SITE}", {"source": "test"})


@pytest.fixture
def run(model, decoder, baseline):
    def run(pairs: int = PAIRS, **changes) -> Attribution:
        options = {"decoder": decoder, "k": K} | changes
        return attribute(model, None, make_pairs(pairs), site=SITE, baseline=baseline, **options)

    return run


def naive(model, decoder, baseline, pairs: int):
    rows = decoder.double() / decoder.double().norm(dim=1, keepdim=True)
    positive, negative, push, presence = effects_naively(
        model, make_pairs(pairs), rows, baseline.mean
    )
    return (positive - negative).numpy(), push.numpy(), presence.numpy()


def stderr(values: np.ndarray) -> np.ndarray:
    return values.std(0, ddof=1) / np.sqrt(len(values))


def t_key(per_pair: np.ndarray, signs: np.ndarray, ranking: str) -> np.ndarray:
    """[flips, n]; per_pair [pairs, n], signs [flips, pairs]."""
    flipped = signs[:, :, None] * per_pair
    t = flipped.mean(1) / (flipped.std(1, ddof=1) / np.sqrt(flipped.shape[1]))
    return {"top": t, "bottom": -t, "abs": np.abs(t)}[ranking]


@pytest.mark.parametrize("impl", ["reference", "torch", "auto"])
@pytest.mark.parametrize("ranking", ["top", "bottom", "abs"])
def test_exact_p_values(run, model, decoder, baseline, impl, ranking):
    """7 pairs have 128 flips; the family is all latents, not those that are ranked."""
    found = run(impl=impl, ranking=ranking)
    per_pair, push, presence = naive(model, decoder, baseline, PAIRS)
    signs = 1.0 - 2.0 * ((np.arange(128)[:, None] >> np.arange(PAIRS)) & 1)
    key = t_key(per_pair, signs, ranking)
    expected = (key.max(1)[:, None] >= key[0] - 1e-6).mean(0)
    latents = found.latents.numpy()
    np.testing.assert_allclose(found.p_value.numpy(), expected[latents], rtol=1e-12)
    assert found.stand_out == (expected[latents] <= 0.05).sum()
    record = found.metadata["significance"]
    assert record["stand_out_of_all"] == (expected <= 0.05).sum()
    np.testing.assert_allclose(found.push_stderr.numpy(), stderr(push)[latents], rtol=1e-4)
    np.testing.assert_allclose(found.presence_stderr.numpy(), stderr(presence)[latents], rtol=1e-4)
    unsure = np.abs(push.mean(0)) < 3 * stderr(push)
    assert found.sign_unsure.tolist() == unsure[latents].tolist()
    assert unsure[latents].any()


@pytest.mark.parametrize("normalize", [True, False])
def test_random_flips(run, model, decoder, baseline, normalize):
    """t does not depend on a row's length, so neither does p."""
    found = run(pairs=13, normalize=normalize)
    per_pair, _, _ = naive(model, decoder, baseline, 13)
    flips = sign_flips(13, 1000, two_sided=False)
    assert (len(flips.signs), flips.exact) == (1000, False)
    own = t_key(per_pair, np.ones((1, 13)), "top")[0]
    largest = np.concatenate(
        [t_key(per_pair, part.numpy(), "top").max(1) for part in flips.signs.split(100)]
    )
    expected = (1 + (largest[:, None] >= own - 1e-6).sum(0)) / 1001
    np.testing.assert_allclose(found.p_value.numpy(), expected[found.latents.numpy()], rtol=1e-12)
    assert run(pairs=13, flips=5000).metadata["significance"]["flips"] == 5000
    assert run(pairs=13, flips=8192).metadata["significance"]["exact"] is True


def test_only_present_latents_are_ranked_but_all_are_the_family(run):
    every, present = run(k=N), run(present_only=True)
    place = {latent: rank for rank, latent in enumerate(every.latents.tolist())}
    of_all = every.p_value[[place[latent] for latent in present.latents.tolist()]]
    assert torch.equal(present.p_value, of_all)
    # Ranks are among present latents, of which the study itself gives 1 … K.
    assert bool((present.rank_low <= torch.arange(1, K + 1)).all())
    assert bool((present.rank_high >= torch.arange(1, K + 1)).all())
    assert float(present.rank_high.max()) <= int((every.presence > 0).sum())


def test_a_decoder_in_a_file(run, decoder, tmp_path):
    from safetensors.torch import save_file

    save_file({"W_dec": decoder}, tmp_path / "sae.safetensors")
    stored = StoredDecoder(open_tensors(tmp_path / "sae.safetensors").get("W_dec"))
    found, held = run(decoder=stored), run()
    assert torch.equal(found.p_value, held.p_value)
    assert torch.equal(found.rank_high, held.rank_high)


def test_zero_flips_and_a_single_pair_are_not_tested(run):
    for found in (run(flips=0), run(pairs=1)):
        assert bool(found.p_value.isnan().all())
        assert bool(found.rank_low.isnan().all())
        assert found.stand_out == 0
    assert bool(run(pairs=1).push_stderr.isnan().all())
    assert not run(pairs=1).sign_unsure.any()
    with pytest.raises(InputError, match="flips must be 0 or more"):
        run(flips=-1)


def test_flips_are_recorded_but_make_no_other_run(run, tmp_path):
    found = run(run_dir=tmp_path / "run")
    again = run(run_dir=tmp_path / "run", flips=0)
    assert torch.equal(found.p_value, again.p_value)
    record = json.loads((tmp_path / "run" / "metadata.json").read_text())["significance"]
    assert (record["flips"], record["asked"], record["exact"]) == (128, 1000, True)
    assert record["sentence"] == again.metadata["significance"]["sentence"]


def test_a_loaded_run_is_the_saved_one_and_an_earlier_one_has_none(run, tmp_path):
    found = run(run_dir=tmp_path)
    names = ("p_value", "rank_low", "rank_high", "push_stderr", "presence_stderr", "sign_unsure")
    loaded = Attribution.load(tmp_path)
    for name in names:
        assert torch.equal(getattr(loaded, name), getattr(found, name)), name
    with (tmp_path / "attribution.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert {row["sign_unsure"] for row in rows} <= {"true", "false"}
    with (tmp_path / "attribution.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(
            stream, [name for name in rows[0] if name not in names], extrasaction="ignore"
        )
        writer.writeheader()
        writer.writerows(rows)
    earlier = Attribution.load(tmp_path)
    assert torch.equal(earlier.scores, found.scores)
    for name in names[:-1]:
        assert bool(getattr(earlier, name).isnan().all()), name
    assert earlier.stand_out == 0
    assert not earlier.sign_unsure.any()


def test_a_study_of_nothing_has_no_latent_that_stands_out(model, decoder, baseline):
    """Completions that tell nothing apart: each is the other's in as many pairs."""
    found = attribute(
        model, None, make_pairs(40, seed=3), decoder, site=SITE, baseline=baseline, k=K
    )
    assert found.stand_out == 0
    assert "this ranking is what chance gives" in found.metadata["significance"]["sentence"]
