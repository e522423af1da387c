"""The unit of strengths, against hidden states that transformers returns."""

from __future__ import annotations

import pytest
import torch

from deltalens.trials.residual_norm import median_norm
from helpers.tiny_study import (
    SITE,
    make_model,
    make_tokenizer,
)

PROMPTS = ["w1 w2 w3", "w4 w5", "w6 w7 w8 w9"]


def test_median_norm_is_that_of_the_tokens_after_bos() -> None:
    model, tokenizer = make_model(), make_tokenizer()
    norms = []
    for prompt in PROMPTS:
        ids = torch.tensor([tokenizer(prompt)["input_ids"]])
        hidden = model(ids, output_hidden_states=True).hidden_states[SITE + 1]
        norms.append(hidden[0, 1:].detach().norm(dim=1))
    expected = float(torch.cat(norms).median())
    found = median_norm(model, tokenizer, PROMPTS, site=SITE)
    assert found == pytest.approx(expected, rel=1e-5)
