"""Steering in prefill and in decoding, against forward passes without a cache."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from deltalens.errors import InputError
from deltalens.lm import resolve_site, steering
from helpers.families import (
    FAMILIES,
    WIDTH,
    build,
    token_ids,
)

ROWS, PROMPT, STEPS, SITE = 3, 8, 4, 1


def prompts(length: int = PROMPT) -> Tensor:
    return torch.tensor([token_ids(length, row) for row in range(ROWS)])


def directions(model: Any) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(ROWS, WIDTH, generator=generator).to(model.dtype)


STRENGTHS = torch.tensor([0.5, -2.0, 3.0])


def by_hand(model: Any, ids: Tensor, row: int, start: int) -> Tensor:
    """Logits [seq, vocabulary] of one row, steered from position ``start`` on, without a cache."""

    def hook(module: Any, args: Any, output: Any) -> Any:
        hidden = (output[0] if isinstance(output, tuple) else output).clone()
        hidden[:, start:] += STRENGTHS[row] * directions(model)[row]
        return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

    handle = resolve_site(model, SITE).module.register_forward_hook(hook)
    with torch.no_grad():
        logits = model(ids[row : row + 1], use_cache=False).logits[0]
    handle.remove()
    return logits


def tolerance(model: Any) -> dict[str, float]:
    single = model.dtype == torch.float32
    return {"rtol": 1e-4, "atol": 1e-5} if single else {"rtol": 1e-9, "atol": 1e-10}


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_prefill_steers_every_prompt_token(family: str) -> None:
    model = build(family)
    with steering(model, SITE, directions(model), STRENGTHS):
        logits = model(prompts(), use_cache=True).logits
    for row in range(ROWS):
        assert_close(logits[row], by_hand(model, prompts(), row, 0), **tolerance(model))


@torch.no_grad()
@pytest.mark.parametrize("tokens", ["all", "generated"])
@pytest.mark.parametrize("family", FAMILIES)
def test_each_decode_step_is_steered(family: str, tokens: str) -> None:
    model = build(family)
    ids = prompts(PROMPT + STEPS)
    start = 0 if tokens == "all" else PROMPT
    with steering(model, SITE, directions(model), STRENGTHS, tokens=tokens):
        output = model(ids[:, :PROMPT], use_cache=True)
        logits = [output.logits]
        for step in range(PROMPT, PROMPT + STEPS):
            cache = output.past_key_values
            output = model(ids[:, step : step + 1], past_key_values=cache, use_cache=True)
            logits.append(output.logits)
    found = torch.cat(logits, dim=1)
    unsteered = model(ids, use_cache=False).logits
    for row in range(ROWS):
        assert_close(found[row], by_hand(model, ids, row, start), **tolerance(model))
        assert not torch.allclose(found[row, PROMPT:], unsteered[row, PROMPT:], atol=1e-2)


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("tokens", ["all", "generated"])
@pytest.mark.parametrize("family", ["llama", "gemma3", "gemma3-nested", "gpt2", "gpt-neox"])
def test_generate_with_and_without_cache(family: str, tokens: str, use_cache: bool) -> None:
    model = build(family)
    model.generation_config.eos_token_id = None
    # The second prompt is as long as the next pass over the first would have been.
    first, second = prompts(), prompts(PROMPT + STEPS)
    with steering(model, SITE, directions(model), STRENGTHS, tokens=tokens):
        generated = [generate(model, ids, use_cache) for ids in (first, second)]
    for ids, found in zip((first, second), generated, strict=True):
        start = 0 if tokens == "all" else ids.shape[1]
        assert torch.equal(found, greedy_by_hand(model, ids, start))
        assert not torch.equal(found, generate(model, ids, use_cache))


def generate(model: Any, ids: Tensor, use_cache: bool) -> Tensor:
    return model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=STEPS,
        do_sample=False,
        use_cache=use_cache,
        pad_token_id=0,
    )


def greedy_by_hand(model: Any, ids: Tensor, start: int) -> Tensor:
    for _ in range(STEPS):
        following = [by_hand(model, ids, row, start)[-1].argmax() for row in range(ROWS)]
        ids = torch.cat([ids, torch.stack(following)[:, None]], dim=1)
    return ids


def test_one_direction_for_all_rows() -> None:
    model = build("llama")
    one = directions(model)[0]
    with torch.no_grad():
        with steering(model, "layers.1", one, 0.75):
            found = model(prompts()).logits
        with steering(model, SITE, one.expand(ROWS, -1), torch.full((ROWS,), 0.75)):
            assert_close(model(prompts()).logits, found)
        with steering(model, SITE, one, torch.full((ROWS,), 0.75)):
            assert_close(model(prompts()).logits, found)
        assert not torch.allclose(model(prompts()).logits, found, atol=1e-3)


def test_directions_take_the_dtype_of_the_model() -> None:
    model = build("llama", torch.bfloat16)
    with torch.no_grad(), steering(model, SITE, directions(model).double(), STRENGTHS):
        assert model(prompts()).logits.dtype == torch.bfloat16


def test_the_hooks_are_gone_afterwards() -> None:
    model = build("llama")
    with pytest.raises(KeyError), steering(model, SITE, directions(model), STRENGTHS):
        raise KeyError
    options: Any = {"tokens": "generated"}
    with pytest.raises(KeyError), steering(model, SITE, directions(model), STRENGTHS, **options):
        raise KeyError
    for module in model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks


def test_the_batch_must_have_as_many_rows() -> None:
    model = build("llama")
    with (
        steering(model, SITE, directions(model), STRENGTHS),
        pytest.raises(InputError, match="steering has 3 rows, the batch has 2"),
    ):
        model(prompts()[:2])


@pytest.mark.parametrize(
    ("vectors", "strengths", "message"),
    [
        (torch.zeros(2, 5), torch.zeros(2), r"directions must be \[rows, 32\] or \[32\].*\[2, 5\]"),
        (torch.zeros(1, 2, WIDTH), 1.0, "directions must be"),
        (torch.zeros(2, WIDTH), torch.zeros(3), r"got \[3\] for directions \[2, 32\]"),
        (torch.zeros(2, WIDTH), torch.zeros(2, 1), "strengths must be a number or one per row"),
        (torch.full((WIDTH,), torch.nan), 1.0, "must be finite"),
        (torch.zeros(WIDTH), float("inf"), "must be finite"),
    ],
)
def test_shapes_that_do_not_fit(vectors: Tensor, strengths: Any, message: str) -> None:
    model = build("llama")
    with pytest.raises(InputError, match=message), steering(model, SITE, vectors, strengths):
        pass


def test_unknown_tokens_option() -> None:
    model = build("llama")
    options: Any = {"tokens": "prompt"}
    with (
        pytest.raises(InputError, match="steering tokens must be 'all' or 'generated'"),
        steering(model, SITE, directions(model), STRENGTHS, **options),
    ):
        pass
