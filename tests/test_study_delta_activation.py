"""Latent means against encoding everything at once, written out."""

from __future__ import annotations

import pytest
import torch

import deltalens
from deltalens.sae import save_saelens
from deltalens.sae.encoder import topk_encoder
from deltalens.study.delta_activation import latent_means, top_delta_activation
from study_tools import D_MODEL, SITE, make_model, make_tokenizer

PROMPTS = ["w1 w2 w3", "w4 w5", "w6 w7 w8 w9 w1 w1"]
F, K = 60, 4


def make_sae(directory, **changes):
    generator = torch.Generator().manual_seed(0)
    cfg = {"k": K, "metadata": {"hook_name": f"blocks.{SITE}.hook_resid_post"}, **changes}
    save_saelens(
        directory,
        W_enc=torch.randn(D_MODEL, F, generator=generator),
        b_enc=torch.randn(F, generator=generator),
        W_dec=torch.randn(F, D_MODEL, generator=generator),
        b_dec=torch.randn(D_MODEL, generator=generator),
        cfg=cfg,
    )
    return deltalens.load_sae(directory)


def encoded_by_hand(sae, acts, subtract):
    """One token and one latent at a time."""
    W_enc, b_enc, b_dec = (sae.tensor(name) for name in ("W_enc", "b_enc", "b_dec"))
    out = torch.zeros(len(acts), F)
    for t, row in enumerate(acts):
        before = (row - b_dec * subtract) @ W_enc + b_enc
        for i in before.argsort(descending=True)[:K]:
            out[t, i] = max(float(before[i]), 0.0)
    return out


@pytest.mark.parametrize("subtract", [True, False])
def test_the_encoder_keeps_the_k_largest(tmp_path, subtract):
    sae = make_sae(tmp_path / "sae", apply_b_dec_to_input=subtract)
    acts = torch.randn(30, D_MODEL)
    expected = encoded_by_hand(sae, acts, subtract)
    torch.testing.assert_close(topk_encoder(sae)(acts), expected, rtol=1e-5, atol=1e-5)


def test_means_are_over_the_tokens_after_bos(tmp_path):
    sae = make_sae(tmp_path / "sae")
    model, tokenizer = make_model(), make_tokenizer()
    rows = []
    for prompt in PROMPTS:
        ids = torch.tensor([tokenizer(prompt)["input_ids"]])
        hidden = model(ids, output_hidden_states=True).hidden_states[SITE + 1]
        rows.append(hidden[0, 1:].detach())
    subtract = sae.metadata["apply_b_dec_to_input"]
    latents = encoded_by_hand(sae, torch.cat(rows), subtract)
    found = latent_means(model, tokenizer, PROMPTS, topk_encoder(sae), site=SITE)
    assert found.tokens == 11
    torch.testing.assert_close(found.mean, latents.double().mean(0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.frequency, (latents > 0).double().mean(0))
    assert found.live.tolist() == sorted(set(latents.nonzero()[:, 1].tolist()))


def test_the_top_is_what_grew_most(tmp_path):
    sae = make_sae(tmp_path / "sae")
    tokenizer, encode = make_tokenizer(), topk_encoder(sae)
    changed, original = (
        latent_means(make_model(seed=seed), tokenizer, PROMPTS, encode, site=SITE)
        for seed in (1, 0)
    )
    top = top_delta_activation(changed, original, 5).tolist()
    growth = (changed.mean - original.mean).tolist()
    assert top == sorted(range(F), key=lambda i: (-growth[i], i))[:5]


def test_other_saes_are_refused(tmp_path):
    sae = make_sae(tmp_path / "sae", normalize_activations="layer_norm")
    with pytest.raises(deltalens.InputError, match="layer_norm"):
        topk_encoder(sae)
    plain = make_sae(tmp_path / "standard", architecture="standard")
    with pytest.raises(deltalens.InputError, match="architecture standard"):
        topk_encoder(plain)
