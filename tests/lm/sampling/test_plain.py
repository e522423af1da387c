"""Sampling from models with recurrent states against forward passes without a cache."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from deltalens.errors import InputError
from deltalens.lm import resolve_site, sample, steering
from deltalens.lm.sampling import draws
from deltalens.lm.sampling.generate import fits_slots
from helpers.families import FAMILIES, WIDTH, build, token_ids
from helpers.recurrent import KINDS, build_recurrent
from helpers.two_races import drawn

SIZES = (3, 6, 1, 11, 3, 3)
PROMPTS = [token_ids(size, number) for number, size in enumerate(SIZES)]
STEPS, SITE = 6, 1
VECTOR = 3 * torch.randn(WIDTH, generator=torch.Generator().manual_seed(3))


@torch.no_grad()
def alone(
    model: Any, row: int, added: torch.Tensor | None, prompt: bool, seed: int | None
) -> list[int]:
    """One row's completion by whole forward passes; greedy without a seed."""
    ids = list(PROMPTS[row])
    start = 0 if prompt else len(ids)

    def hook(module: Any, args: Any, output: Any) -> Any:
        hidden = (output[0] if isinstance(output, tuple) else output).clone()
        hidden[:, start:] += 0 if added is None else added
        return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

    handle = resolve_site(model, SITE).module.register_forward_hook(hook)
    for step in range(STEPS):
        logits = model(torch.tensor([ids]), use_cache=False).logits[:, -1]
        logits = logits[0].double()
        token = logits.argmax() if seed is None else drawn(logits.tolist(), seed, row, step)
        ids.append(int(token))
    handle.remove()
    return ids[len(PROMPTS[row]) :]


@pytest.mark.parametrize("kind", KINDS)
def test_completions_are_those_of_whole_forward_passes(kind: str) -> None:
    model = build_recurrent(kind)
    rows = range(len(PROMPTS))
    greedy = sample(model, None, PROMPTS, max_new_tokens=STEPS, temperature=0)
    assert greedy == [alone(model, row, None, True, None) for row in rows]
    drawn = sample(model, None, PROMPTS, max_new_tokens=STEPS, seed=5)
    assert drawn == [alone(model, row, None, True, 5) for row in rows]
    for tokens in ("all", "generated"):
        steered = sample(
            model,
            None,
            PROMPTS,
            max_new_tokens=STEPS,
            temperature=0,
            site=SITE,
            directions=torch.stack([VECTOR * number for number in range(len(PROMPTS))]),
            strengths=0.5,
            steer_tokens=tokens,
        )
        expected = [alone(model, row, 0.5 * row * VECTOR, tokens == "all", None) for row in rows]
        assert steered == expected
        assert steered != greedy


@pytest.mark.parametrize("kind", KINDS)
def test_rows_do_not_depend_on_their_batch(kind: str) -> None:
    model = build_recurrent(kind)
    whole = sample(model, None, PROMPTS, max_new_tokens=STEPS, seed=5)
    assert sample(model, None, PROMPTS, max_new_tokens=STEPS, seed=5, batch_tokens=1) == whole
    later = sample(model, None, PROMPTS[3:], max_new_tokens=STEPS, seed=5, streams=[3, 4, 5])
    assert later == whole[3:]


@pytest.mark.parametrize("kind", [kind for kind in ("Lfm2", "Mamba") if kind in KINDS])
def test_stops_and_the_model_s_own_configuration(kind: str) -> None:
    model = build_recurrent(kind)
    whole = sample(model, None, PROMPTS, max_new_tokens=STEPS)
    stop = whole[1][2]
    model.generation_config.eos_token_id = stop
    model.generation_config.repetition_penalty = 5.0
    before = model.generation_config.to_dict()
    found = sample(model.train(), None, PROMPTS, max_new_tokens=STEPS)
    assert found == [row[: row.index(stop)] if stop in row else row for row in whole]
    assert model.generation_config.to_dict() == before
    assert model.training


@pytest.mark.parametrize("kind", KINDS)
def test_doubtful_choices_are_read_alone(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build_recurrent(kind)
    options = {"max_new_tokens": STEPS, "seed": 5, "site": SITE, "directions": VECTOR}
    expected = sample(model, None, PROMPTS, **options, strengths=0.3)
    monkeypatch.setitem(draws.MARGIN, torch.float32, 1.0)
    assert sample(model, None, PROMPTS, **options, strengths=0.3) == expected


def test_out_of_memory_backs_off() -> None:
    kind = next(kind for kind in ("Lfm2", "Mamba") if kind in KINDS)
    model = build_recurrent(kind)
    prompts = [PROMPTS[0]] * 5
    expected = sample(model, None, prompts, max_new_tokens=4)

    def before(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        if len(kwargs["input_ids"]) > 2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")

    model.register_forward_pre_hook(before, with_kwargs=True)
    assert sample(model, None, prompts, max_new_tokens=4) == expected


@pytest.mark.parametrize("family", FAMILIES)
def test_keys_and_values_alone_go_to_the_slots(family: str) -> None:
    assert fits_slots(build(family))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("prompt", [PROMPTS[0], PROMPTS[2]])
def test_steering_around_generate(kind: str, prompt: list[int]) -> None:
    model = build_recurrent(kind)
    row = PROMPTS.index(prompt)
    ids = torch.tensor([prompt])
    options = {"max_new_tokens": STEPS, "do_sample": False, "pad_token_id": 0}
    if kind == "Rwkv":
        with (
            pytest.raises(InputError, match="keeps its state to itself"),
            steering(model, SITE, VECTOR, 1.0, tokens="generated"),
        ):
            model.generate(ids, attention_mask=torch.ones_like(ids), **options)
        return
    for _ in range(2):
        with steering(model, SITE, VECTOR, 1.0, tokens="generated"):
            found = model.generate(ids, attention_mask=torch.ones_like(ids), **options)
        assert found[0, len(prompt) :].tolist() == alone(model, row, VECTOR, False, None)
