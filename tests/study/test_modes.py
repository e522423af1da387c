"""A study made with gradients turned off, as notebooks do in their first line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from deltalens.sae import load_sae, save_saelens
from deltalens.study import (
    ablate,
    attribute,
    check_sae,
    delta_activation_of_pairs,
    lens,
    mean_activation,
)
from helpers.tiny_study import D_MODEL, make_model, make_pairs, make_tokenizer

MODES = {"no_grad": torch.no_grad, "inference_mode": torch.inference_mode}


def whole_study(model: Any, directory: Path) -> list[torch.Tensor]:
    pairs = make_pairs(5)
    decoder = torch.randn(80, D_MODEL, generator=torch.Generator().manual_seed(4))
    save_saelens(
        directory,
        W_enc=decoder.T.contiguous(),
        b_enc=torch.zeros(80),
        W_dec=decoder,
        b_dec=torch.zeros(D_MODEL),
        cfg={"k": 5, "metadata": {"hook_name": "blocks.1.hook_resid_post"}},
    )
    sae = load_sae(directory)
    prompts = [pair.prompt for pair in pairs]
    baseline = mean_activation(model, None, prompts, site=1)
    found = attribute(model, None, pairs, decoder, site=1, baseline=baseline, k=6)
    removed = ablate(model, None, pairs, decoder, found.latents, site=1, baseline=baseline)
    deltas = delta_activation_of_pairs(model, None, pairs, sae, site=1, k=5)
    checked = check_sae(model, None, sae, site=1, texts=prompts)
    seen = lens(model, make_tokenizer(), decoder, found.latents)
    return [
        baseline.mean,
        found.scores,
        found.latents,
        torch.as_tensor(removed),
        deltas.difference,
        torch.tensor(checked.reconstruction.explained),
        torch.tensor([token.cosine for row in seen for token in row.promotes]),
    ]


@pytest.mark.parametrize("within", MODES)
def test_the_mode_changes_nothing(within: str, tmp_path: Path) -> None:
    model = make_model()
    expected = whole_study(model, tmp_path / "one")
    with MODES[within]():
        before = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
        found = whole_study(model, tmp_path / "two")
        assert (torch.is_grad_enabled(), torch.is_inference_mode_enabled()) == before
    assert all(map(torch.equal, found, expected))
