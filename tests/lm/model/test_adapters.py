"""What is captured and sampled with an adapter, against plain autograd and one row at a time."""

from __future__ import annotations

import peft
import pytest
import torch

from deltalens import Pair
from deltalens.lm import capture, sample
from helpers.adapters import KINDS, LORA, adapted
from helpers.families import assert_rows_close, build, example, token_ids

SITE = 1
PAIRS = [
    Pair(token_ids(length, length), token_ids(3, 50, bos=False), token_ids(2, 60, bos=False))
    for length in (4, 9, 6)
]


def check(model) -> None:
    for pair, rows in zip(PAIRS, capture(model, None, PAIRS, site=SITE), strict=True):
        sides = (rows.grad_positive, rows.loss_positive), (rows.grad_negative, rows.loss_negative)
        for completion, (grad, loss) in zip((pair.positive, pair.negative), sides, strict=True):
            acts, gradient, truth = example(model, pair.prompt, completion, SITE)
            assert_rows_close(rows.acts, acts[1:], acts[1:])
            assert_rows_close(grad, gradient[1:], gradient[1:])
            assert loss == pytest.approx(truth, rel=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_capture_is_exact(kind: str) -> None:
    check(adapted(build("llama"), KINDS[kind]()))


@pytest.mark.parametrize("family", ["qwen3-moe", "mixtral"])
def test_on_a_mixture_of_experts(family: str) -> None:
    config = peft.LoraConfig(target_modules=["q_proj", "v_proj"], **LORA)
    check(adapted(build(family), config))


@pytest.mark.parametrize("kind", ["lora", "ia3", "embeddings and head", "trained tokens"])
def test_sampling_is_greedy_decoding(kind: str) -> None:
    model = adapted(build("llama"), KINDS[kind]())
    prompts = [pair.prompt for pair in PAIRS]
    found = sample(model, None, prompts, max_new_tokens=5, temperature=0)
    for prompt, tokens in zip(prompts, found, strict=True):
        ids = list(prompt)
        for token in tokens:
            with torch.no_grad():
                assert int(model(torch.tensor([ids])).logits[0, -1].argmax()) == token
            ids.append(token)
