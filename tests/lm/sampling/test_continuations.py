"""Continued prompts against forward passes of one row without a cache."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers

from deltalens.lm.sampling.continuations import Continuations
from helpers.families import FAMILIES, VOCABULARY, WIDTH, build, token_ids

SIZES = (9, 3, 14)
PLACES = [2, 0, 0, 1, 2]


@torch.no_grad()
def alone(model: Any, ids: list[int]) -> torch.Tensor:
    return model(torch.tensor([ids]), use_cache=False).logits[0, -1]


def check(model: Any, tolerance: float) -> None:
    prompts = [token_ids(size, seed) for seed, size in enumerate(SIZES)]
    found = Continuations(model, prompts)
    truth = torch.stack([alone(model, prompt) for prompt in prompts])
    torch.testing.assert_close(found.first(), truth, rtol=tolerance, atol=tolerance)
    for count in (1, 3):
        added = [token_ids(count, 40 + row, bos=False) for row in range(len(PLACES))]
        rows = [alone(model, prompts[at] + new) for at, new in zip(PLACES, added, strict=True)]
        for _ in range(2):  # nothing is changed by reading
            got = found.after(PLACES, added)
            torch.testing.assert_close(got, torch.stack(rows), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_those_of_the_whole_text(family: str) -> None:
    model = build(family)
    check(model, 1e-4 if model.dtype == torch.float32 else 1e-9)


def test_models_with_a_recurrent_state() -> None:
    torch.manual_seed(3)
    config = transformers.MambaConfig(
        vocab_size=VOCABULARY, hidden_size=WIDTH, num_hidden_layers=2, state_size=4
    )
    check(transformers.MambaForCausalLM(config).eval(), 1e-4)


def test_the_model_is_left_as_it_was() -> None:
    model = build("llama").train()
    found = Continuations(model, [token_ids(5, 1)])
    found.after([0], [[7]])
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not found.first().requires_grad
