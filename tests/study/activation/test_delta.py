"""Δ-activation and z̄ against encoding every prompt at once in fp64, written out."""

from __future__ import annotations

import csv
import json
import math

import pytest
import torch
from safetensors import safe_open

import deltalens
from deltalens import InputError, Pair
from deltalens.sae import save_saelens
from deltalens.study.activation.difference import COLUMNS
from helpers.tiny_study import (
    D_MODEL,
    SITE,
    make_model,
    make_pairs,
    make_tokenizer,
)

PROMPTS = ["w1 w2 w3", "w4 w5", "w6 w7 w8 w9 w1 w1"]
F, K = 60, 4


@pytest.fixture
def sae(tmp_path):
    return make_sae(tmp_path / "sae")


def make_sae(directory, seed=0, width=D_MODEL):
    generator = torch.Generator().manual_seed(seed)
    save_saelens(
        directory,
        W_enc=torch.randn(width, F, generator=generator),
        b_enc=torch.randn(F, generator=generator),
        W_dec=torch.randn(F, width, generator=generator),
        b_dec=torch.randn(width, generator=generator),
        cfg={"k": K, "metadata": {"hook_name": f"blocks.{SITE}.hook_resid_post"}},
    )
    return deltalens.load_sae(directory)


def latents_by_hand(sae, model, ids, first):
    """z [tokens, F] in fp64 of the tokens from ``first`` on, one token at a time."""
    hidden = model(torch.tensor([ids]), output_hidden_states=True).hidden_states[SITE + 1]
    W_enc, b_enc, b_dec = (sae.tensor(name).double() for name in ("W_enc", "b_enc", "b_dec"))
    out = []
    for row in hidden[0, first:].detach().double():
        before = (row - b_dec) @ W_enc + b_enc
        kept = before.topk(K)
        out.append(torch.zeros(F, dtype=torch.float64).scatter(0, kept.indices, kept.values))
    return torch.stack(out).clamp(min=0)


def check(found, ours, theirs, k):
    """Against z of every prompt on both sides."""
    a, b = (torch.stack([z.mean(0) for z in side]) for side in (ours, theirs))
    shares = [torch.stack([(z > 0).double().mean(0) for z in side]) for side in (ours, theirs)]
    near = {"rtol": 1e-5, "atol": 1e-6}
    torch.testing.assert_close(found.mean, a.mean(0), **near)
    torch.testing.assert_close(found.mean_against, b.mean(0), **near)
    torch.testing.assert_close(found.difference, (a - b).mean(0), **near)
    torch.testing.assert_close(found.stderr, (a - b).std(0) / math.sqrt(len(a)), **near)
    torch.testing.assert_close(found.frequency, shares[0].mean(0))
    torch.testing.assert_close(found.frequency_against, shares[1].mean(0))
    growth = found.difference.tolist()
    assert found.latents.tolist() == sorted(range(F), key=lambda i: (-growth[i], i))[:k]
    assert found.prompts == len(a)


@pytest.fixture(params=["one batch", "a batch per prompt", "tiles"])
def batching(request, monkeypatch):
    if request.param == "a batch per prompt":
        monkeypatch.setattr("deltalens.study.activation.latent_means.BATCH_TOKENS", 1)
        monkeypatch.setattr("deltalens.study.activation.paired_sums.BATCH_TOKENS", 1)
    if request.param == "tiles":
        monkeypatch.setattr("deltalens.sae.encoder._TILE_BYTES", 16)


def test_two_models_on_the_same_prompts(sae, batching):
    changed, original, tokenizer = make_model(seed=1), make_model(seed=0), make_tokenizer()
    found = deltalens.delta_activation(changed, original, tokenizer, PROMPTS, sae, site=SITE, k=7)
    ids = [tokenizer(prompt)["input_ids"] for prompt in PROMPTS]
    ours, theirs = (
        [latents_by_hand(sae, model, one, 1) for one in ids] for model in (changed, original)
    )
    check(found, ours, theirs, 7)


@pytest.mark.parametrize("tokens", ["completion", "all"])
def test_positive_against_negative_completions(sae, tokens, batching):
    model, pairs = make_model(), make_pairs(5)
    found = deltalens.delta_activation_of_pairs(
        model, None, pairs, sae, site=SITE, tokens=tokens, k=F
    )
    sides = (
        [
            latents_by_hand(
                sae,
                model,
                pair.prompt + getattr(pair, side),
                len(pair.prompt) if tokens == "completion" else 1,
            )
            for pair in pairs
        ]
        for side in ("positive", "negative")
    )
    check(found, *sides, F)


def test_one_prompt_has_no_standard_error(sae):
    found = deltalens.delta_activation(
        make_model(seed=1), make_model(), make_tokenizer(), PROMPTS[:1], sae, site=SITE, k=1
    )
    assert found.stderr.isnan().all()
    assert found.difference.isfinite().all()


def test_what_is_saved_is_what_was_found(sae, tmp_path):
    found = deltalens.delta_activation_of_pairs(
        make_model(), None, make_pairs(5), sae, site=SITE, k=6
    )
    found.save(tmp_path / "run")
    with (tmp_path / "run" / "delta_activation.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [int(row["latent"]) for row in rows] == found.latents.tolist()
    with safe_open(tmp_path / "run" / "delta_activation.safetensors", "pt") as file:
        for name in COLUMNS:
            values = getattr(found, name)
            assert torch.equal(file.get_tensor(name), values)
            assert [float(row[name]) for row in rows] == values[found.latents].tolist()
        said = json.loads(file.metadata()["delta_activation"])
    assert said["sae_fingerprint"] == sae.fingerprint
    assert (said["prompts"], said["tokens"]) == (5, "completion")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompts": []}, "no prompts given"),
        ({"k": F + 1}, "k must be 1 … 60.*got 61"),
        ({"prompts": [""]}, "no token after the BOS"),
        ({"sae": 3}, "expected an SAE"),
    ],
)
def test_bad_input_is_named(sae, changes, message):
    given = {"prompts": PROMPTS, "sae": sae, "site": SITE, "k": 3, **changes}
    with pytest.raises(InputError, match=message):
        deltalens.delta_activation(make_model(), make_model(seed=1), make_tokenizer(), **given)


def test_an_sae_of_another_width_is_refused(tmp_path):
    wide = make_sae(tmp_path / "wide", width=D_MODEL + 1)
    with pytest.raises(InputError, match=r"reads d_model 25 but blocks\.1\.hook_resid_post has 24"):
        deltalens.delta_activation_of_pairs(make_model(), None, make_pairs(2), wide, site=SITE, k=1)


def test_tokens_are_completion_or_all(sae):
    with pytest.raises(InputError, match="'completion' or 'all', got 'prompt'"):
        deltalens.delta_activation_of_pairs(
            make_model(), None, [Pair([6], [7], [8])], sae, site=SITE, tokens="prompt"
        )


@pytest.mark.parametrize("include_bos", [False, True])
def test_the_baseline_keeps_the_mean_of_the_latents(sae, tmp_path, include_bos, batching):
    model, tokenizer = make_model(), make_tokenizer()
    made = deltalens.mean_activation(
        model, tokenizer, PROMPTS, site=SITE, sae=sae, include_bos=include_bos
    )
    ids = [tokenizer(prompt)["input_ids"] for prompt in PROMPTS]
    z = torch.cat([latents_by_hand(sae, model, one, 0 if include_bos else 1) for one in ids])
    made.save(tmp_path / "baseline.safetensors")
    kept = deltalens.Baseline.load(tmp_path / "baseline.safetensors")
    torch.testing.assert_close(kept.latent_mean_of(sae), z.mean(0), rtol=1e-5, atol=1e-6)
    plain = deltalens.mean_activation(model, tokenizer, PROMPTS, site=SITE, include_bos=include_bos)
    assert torch.equal(plain.mean, kept.mean)
    with pytest.raises(InputError, match="holds no mean of the latents"):
        plain.latent_mean_of(sae)
    other = make_sae(tmp_path / "other", seed=1)
    with pytest.raises(InputError, match="mean of 60 latents is of another SAE"):
        kept.latent_mean_of(other)
