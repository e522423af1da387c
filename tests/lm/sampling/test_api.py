"""Sampling: independent rows, the right distribution, steering, stops."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from deltalens.errors import InputError
from deltalens.lm import sample, steering
from helpers.families import (
    CONTEXT,
    FAMILIES,
    WIDTH,
    build,
    checked,
    token_ids,
)

SIZES = [3, 12, 7, 1, 9]


def prompts() -> list[list[int]]:
    return [token_ids(size, number) for number, size in enumerate(SIZES)]


class Tokenizer:
    """All that sampling reads of a tokenizer."""

    def __init__(self, eos_token_id: int | None) -> None:
        self.eos_token_id = eos_token_id


def unstopped(family: str) -> Any:
    model = build(family)
    model.generation_config.eos_token_id = None
    return model


@torch.no_grad()
def greedy_alone(model: Any, prompt: list[int], steps: int) -> list[int]:
    ids = list(prompt)
    for _ in range(steps):
        ids.append(int(model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
    return ids[len(prompt) :]


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_equals_forward_passes_without_a_cache(family: str) -> None:
    model = unstopped(family)
    found = sample(model, None, prompts(), max_new_tokens=6, temperature=0)
    assert found == [greedy_alone(model, prompt, 6) for prompt in prompts()]


@pytest.mark.parametrize("family", ["llama", "gemma3", "gpt2"])
def test_rows_do_not_depend_on_their_batch(family: str) -> None:
    model = unstopped(family)
    whole = sample(model, None, prompts(), max_new_tokens=8, seed=5)
    assert sample(model, None, prompts(), max_new_tokens=8, seed=5, batch_tokens=1) == whole
    assert sample(model, None, prompts(), max_new_tokens=8, seed=5, batch_tokens=40) == whole
    assert sample(model, None, prompts()[:3], max_new_tokens=8, seed=5) == whole[:3]
    later = sample(model, None, prompts()[2:], max_new_tokens=8, seed=5, streams=[2, 3, 4])
    assert later == whole[2:]
    shorter = sample(model, None, prompts(), max_new_tokens=4, seed=5)
    assert shorter == [row[:4] for row in whole]


def test_seeds_and_rows_have_streams_of_their_own() -> None:
    model = unstopped("llama")
    same = [prompts()[1]] * 4
    rows = sample(model, None, same, max_new_tokens=8, seed=1)
    others = sample(model, None, same, max_new_tokens=8, seed=2)
    assert len({tuple(row) for row in rows + others}) == 8


@pytest.mark.parametrize("temperature", [0.5, 1.0])
def test_tokens_follow_the_model_s_distribution(temperature: float) -> None:
    model, draws = unstopped("llama"), 4000
    found = sample(
        model, None, [prompts()[2]] * draws, max_new_tokens=1, temperature=temperature, seed=3
    )
    with torch.no_grad():
        logits = model(torch.tensor([prompts()[2]])).logits[0, -1]
    expected = draws * torch.softmax(logits / temperature, dim=-1)
    counts = torch.bincount(torch.tensor(found).flatten(), minlength=len(expected))
    common = expected >= 5
    chi_squared = ((counts - expected)[common] ** 2 / expected[common]).sum()
    degrees = int(common.sum()) - 1
    assert degrees > 5
    assert abs(chi_squared - degrees) < 4 * (2 * degrees) ** 0.5


def test_completions_end_before_an_end_of_text_token() -> None:
    model = unstopped("llama")
    whole = sample(model, None, prompts(), max_new_tokens=8)
    stop = whole[1][3]
    expected = [row[: row.index(stop)] if stop in row else row for row in whole]
    assert sample(model, Tokenizer(stop), prompts(), max_new_tokens=8) == expected
    for configured in (stop, [stop, 0]):
        model.generation_config.eos_token_id = configured
        found = sample(model, Tokenizer(None), prompts(), max_new_tokens=8)
        assert [row[: len(cut)] for row, cut in zip(expected, found, strict=True)] == found
        assert found[1] == expected[1]


def test_generation_ends_when_every_row_has(monkeypatch: pytest.MonkeyPatch) -> None:
    model = unstopped("llama")
    first = sample(model, None, prompts()[:1], max_new_tokens=1)[0][0]
    passes: list[int] = []
    model.register_forward_pre_hook(lambda *_: passes.append(1))
    assert sample(model, Tokenizer(first), prompts()[:1], max_new_tokens=20) == [[]]
    assert len(passes) == 1


@pytest.mark.parametrize("steer_tokens", ["all", "generated"])
def test_each_row_is_steered_by_its_own_direction(steer_tokens: Any) -> None:
    model = unstopped("llama")
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(len(SIZES), WIDTH, generator=generator)
    strengths = torch.tensor([1.0, -2.0, 3.0, 0.0, 4.0])
    options: dict[str, Any] = {"max_new_tokens": 6, "temperature": 0}
    found = sample(
        model,
        None,
        prompts(),
        site=1,
        directions=directions,
        strengths=strengths,
        steer_tokens=steer_tokens,
        batch_tokens=40,
        **options,
    )
    plain = sample(model, None, prompts(), **options)
    for row, prompt in enumerate(prompts()):
        with steering(model, 1, directions[row], float(strengths[row]), tokens=steer_tokens):
            output = model.generate(
                torch.tensor([prompt]),
                attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),
                max_new_tokens=6,
                do_sample=False,
                pad_token_id=0,
            )
        assert found[row] == output[0, len(prompt) :].tolist()
    assert found[3] == plain[3]
    assert sum(a != b for a, b in zip(found, plain, strict=True)) >= 3


def test_one_direction_for_all() -> None:
    model = unstopped("llama")
    direction = torch.randn(WIDTH, generator=torch.Generator().manual_seed(0))
    found = sample(
        model, None, prompts(), max_new_tokens=4, site=1, directions=direction, strengths=5.0
    )
    rows = {"directions": direction.expand(len(SIZES), -1), "strengths": torch.full((5,), 5.0)}
    assert sample(model, None, prompts(), max_new_tokens=4, site=1, **rows) == found
    assert sample(model, None, prompts(), max_new_tokens=4) != found


def test_out_of_memory_backs_off() -> None:
    model = unstopped("llama")
    expected = sample(model, None, prompts(), max_new_tokens=4)

    def before(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        if len(kwargs["input_ids"]) > 2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")

    model.register_forward_pre_hook(before, with_kwargs=True)
    assert sample(model, None, prompts(), max_new_tokens=4) == expected


def test_logits_exist_at_the_last_position_only() -> None:
    model = checked(unstopped("llama"))
    shapes: list[tuple[int, ...]] = []
    model.lm_head.register_forward_hook(lambda module, args, out: shapes.append(tuple(out.shape)))
    sample(model, None, prompts(), max_new_tokens=3)
    assert shapes == [(5, 1, 97)] * 3


def test_the_model_is_left_as_found() -> None:
    model = unstopped("gpt2").train()
    found = sample(model, None, prompts(), max_new_tokens=4)
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert sample(model.eval(), None, prompts(), max_new_tokens=4) == found


def test_no_prompts() -> None:
    assert sample(build("llama"), None, [], max_new_tokens=4) == []


@pytest.mark.parametrize(
    ("prompt", "options", "message"),
    [
        ([], {}, "prompt 1 has no tokens"),
        ([97], {}, "prompt 1: token id 97 is outside"),
        ([1] * (CONTEXT - 3), {}, r"prompt 1: 61 \+ 4 new = 65 tokens; the model's context is 64"),
        ([1], {"max_new_tokens": 0}, "max_new_tokens must be at least 1"),
        ([1], {"temperature": -1.0}, "temperature must be 0 or more"),
        ([1], {"temperature": float("nan")}, "temperature must be 0 or more"),
        ([1], {"batch_tokens": 0}, "batch_tokens must be at least 1"),
        ([1], {"streams": [1]}, "streams has 1 numbers for 2 prompts"),
        ([1], {"streams": [1, 2**64]}, "streams must be 0 or more and below"),
        ([1], {"seed": -1}, "seed must be 0 or more"),
        ([1], {"site": 1}, "needs all of site, directions and strengths"),
        (
            [1],
            {"site": 1, "directions": torch.zeros(3, WIDTH), "strengths": 1.0},
            "directions has 3 rows for 2 prompts",
        ),
        (
            [1],
            {"site": 1, "directions": torch.zeros(WIDTH), "strengths": torch.zeros(3)},
            "strengths has 3 rows for 2 prompts",
        ),
    ],
)
def test_bad_input(prompt: list[int], options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        sample(build("llama"), None, [[1, 2], prompt], **{"max_new_tokens": 4, **options})


def test_nan_logits() -> None:
    model = build("llama")
    with torch.no_grad():
        model.model.norm.weight[0] = float("nan")
    with pytest.raises(InputError, match="the model's logits are NaN"):
        sample(model, None, prompts(), max_new_tokens=2)
