"""Continuous batching: shared prompts, slots used again, memory, and what is left behind."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

import deltalens.lm.sampling.generate as generation
from deltalens.errors import InputError
from deltalens.lm import (
    sample,
    sample_stream,
    steering,
)
from deltalens.lm.sampling import draws
from deltalens.lm.sampling.slots import SlotCache
from helpers.block_families import build_any, changed_by_hand, points_of
from helpers.families import (
    CONTEXT,
    FAMILIES,
    WIDTH,
    build,
    checked,
    token_ids,
)

SITE = 1
LENGTHS = [3, 12, 7, 1, 9, 12]
CONDITIONS = 3
STOPS = list(range(3, 97, 7))


def unstopped(family: str) -> Any:
    model = build(family)
    model.generation_config.eos_token_id = None
    return model


def crossed() -> tuple[list[list[int]], Tensor]:
    """Every prompt under every condition, shuffled: equal prompts and equal directions recur."""
    generator = torch.Generator().manual_seed(0)
    directions = 2 * torch.randn(CONDITIONS, WIDTH, generator=generator)
    prompts = [token_ids(length, number) for number, length in enumerate(LENGTHS)]
    rows = [(prompt, row) for prompt in prompts for row in directions] * 2
    random.Random(0).shuffle(rows)
    return [prompt for prompt, _ in rows], torch.stack([row for _, row in rows])


@torch.no_grad()
def generated(
    model: Any, prompt: list[int], direction: Tensor, tokens: Any, steps: int, site: Any = SITE
) -> Any:
    with steering(model, site, direction, 1.0, tokens=tokens):
        output = model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),
            max_new_tokens=steps,
            do_sample=False,
            pad_token_id=0,
        )
    return output[0, len(prompt) :].tolist()


@pytest.mark.parametrize("tokens", ["all", "generated"])
@pytest.mark.parametrize("family", FAMILIES)
def test_steered_rows_equal_generate_alone(family: str, tokens: Any) -> None:
    model = unstopped(family)
    prompts, directions = crossed()
    found = sample(
        model,
        None,
        prompts,
        max_new_tokens=5,
        temperature=0,
        site=SITE,
        directions=directions,
        strengths=1.0,
        steer_tokens=tokens,
        batch_tokens=330,  # eight slots or so: rows wait for others to end
    )
    for row in range(0, len(prompts), 5):
        assert found[row] == generated(model, prompts[row], directions[row], tokens, 5)


@torch.no_grad()
def greedy_by_hand(
    model: Any, family: str, kind: str, prompt: list[int], direction: Tensor, start: int
) -> list[int]:
    """Five tokens by forward passes without a cache, steered by a hook placed by hand."""
    ids = list(prompt)

    def change(value: Tensor) -> Tensor:
        value = value.clone()
        value.reshape(len(ids), -1)[start:] += direction.to(value)
        return value

    for _ in range(5):
        with changed_by_hand(model, family, kind, SITE, change):
            ids.append(int(model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
    return ids[len(prompt) :]


@pytest.mark.parametrize("tokens", ["all", "generated"])
@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt-neox", "granite", "falcon", "opt"])
def test_every_point_is_steered_by_sampling_and_by_generate(family: str, tokens: Any) -> None:
    model = build_any(family)
    model.generation_config.eos_token_id = None
    prompts, directions = crossed()
    for kind in points_of(family):
        site = f"blocks.{SITE}.{kind}"
        found = sample(
            model, None, prompts, max_new_tokens=5, temperature=0, site=site,
            directions=directions, strengths=1.0, steer_tokens=tokens, batch_tokens=330,
        )  # fmt: skip
        for row in range(0, len(prompts), 12):
            start = 0 if tokens == "all" else len(prompts[row])
            given = prompts[row], directions[row]
            assert found[row] == greedy_by_hand(model, family, kind, *given, start)
            assert found[row] == generated(model, *given, tokens, 5, site)


def test_the_embeddings_as_they_enter_the_first_block_are_steered() -> None:
    model = unstopped("llama")
    prompts, directions = crossed()
    for kind in points_of("llama"):
        site = f"blocks.0.{kind}"
        found = sample(
            model, None, prompts, max_new_tokens=5, temperature=0, site=site,
            directions=directions, strengths=1.0,
        )  # fmt: skip
        for row in range(0, len(prompts), 9):
            assert found[row] == generated(model, prompts[row], directions[row], "all", 5, site)


def options(model: Any, **changes: Any) -> dict[str, Any]:
    prompts, directions = crossed()
    steered = {"site": SITE, "directions": directions, "strengths": 1.0}
    fixed = {"max_new_tokens": 24, "seed": 5, "prompts": prompts, "tokenizer": None}
    model.generation_config.eos_token_id = STOPS
    return {"model": model, **fixed, **steered, **changes}


@pytest.mark.parametrize("family", ["llama", "gemma3", "gpt2"])
@pytest.mark.parametrize("tokens", ["all", "generated"])
def test_texts_do_not_depend_on_the_budget(family: str, tokens: str) -> None:
    model = unstopped(family)
    whole = sample(**options(model, steer_tokens=tokens))
    assert len(set(map(len, whole))) > 4, "rows end at different steps"
    for budget in (1, 400):
        assert sample(**options(model, steer_tokens=tokens, batch_tokens=budget)) == whole


@pytest.mark.parametrize("tokens", ["all", "generated"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_rounding_that_depends_on_the_batch_decides_nothing(
    monkeypatch: pytest.MonkeyPatch, tokens: str, temperature: float
) -> None:
    """Noise of the batch's size and content stands in for rounding, and is made large."""
    model = unstopped("llama")
    given = options(model, steer_tokens=tokens, temperature=temperature)
    model.generation_config.eos_token_id = None
    head = model.lm_head.forward

    def noisy(hidden: Tensor) -> Tensor:
        logits = head(hidden)
        if len(logits) == 1:
            return logits
        generator = torch.Generator().manual_seed(len(logits))
        return logits + 2e-3 * (2 * torch.rand(logits.shape, generator=generator) - 1)

    monkeypatch.setattr(model.lm_head, "forward", noisy)
    unguarded = [sample(**given, batch_tokens=budget) for budget in (330, 700, 10_000)]
    assert unguarded[0] != unguarded[1] != unguarded[2]
    monkeypatch.setitem(draws.MARGIN, model.dtype, 1e-2)
    guarded = [sample(**given, batch_tokens=budget) for budget in (1, 330, 700, 10_000)]
    assert all(texts == guarded[0] for texts in guarded)


def test_columns_are_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    model = unstopped("llama")
    given = options(model)
    model.generation_config.eos_token_id = None
    whole = sample(**given)
    moves: list[int] = []
    shift = SlotCache._shift
    monkeypatch.setattr(SlotCache, "_shift", lambda *args: (moves.append(1), shift(*args))[1])
    monkeypatch.setattr(generation, "SLACK", 1)
    assert sample(**{**given, "batch_tokens": 250}) == whole
    assert len(moves) > 5


def test_rows_come_as_they_end_each_once() -> None:
    model = unstopped("llama")
    found = list(sample_stream(**options(model, batch_tokens=400)))
    order = [row for row, _ in found]
    assert sorted(order) == list(range(len(order)))
    assert order != sorted(order)
    assert [tokens for _, tokens in sorted(found)] == sample(**options(model))


def test_streams_belong_to_rows() -> None:
    model = unstopped("llama")
    whole = sample(**options(model))
    prompts, directions = crossed()
    chosen = [30, 4, 17]
    found = sample(
        **options(
            model,
            prompts=[prompts[row] for row in chosen],
            directions=directions[chosen],
            streams=chosen,
        )
    )
    assert found == [whole[row] for row in chosen]
    far = sample(**options(model, streams=range(2**64 - len(whole), 2**64)))
    assert far != whole


def passes(model: Any) -> list[tuple[int, int]]:
    """Shapes of the token ids that the model is given from now on."""
    shapes: list[tuple[int, int]] = []

    def before(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        shapes.append(tuple(kwargs["input_ids"].shape))

    model.register_forward_pre_hook(before, with_kwargs=True)
    return shapes


def read_tokens(block: Any) -> list[int]:
    """Tokens of the prompts that the block reads, from now on."""
    counts: list[int] = []

    def after(module: Any, args: Any, output: Any) -> None:
        hidden = output[0] if isinstance(output, tuple) else output
        if hidden.shape[1] > 1:
            counts.append(hidden.shape[0] * hidden.shape[1])

    block.register_forward_hook(after)
    return counts


@pytest.mark.parametrize(("tokens", "prefixes"), [("all", 6 * CONDITIONS), ("generated", 6)])
def test_each_prefix_is_read_once(tokens: str, prefixes: int) -> None:
    model = checked(unstopped("llama"))
    below, above = (read_tokens(model.model.layers[layer].mlp) for layer in (0, 2))
    sample(**options(model, steer_tokens=tokens))
    assert sum(above) == prefixes * 12, "prompts are padded to 12 tokens"
    assert sum(below) == 6 * 12, "what is added does not reach the blocks below the site"


def test_rows_that_end_make_room() -> None:
    model = unstopped("llama")
    whole = sample(**options(model))
    shapes = passes(model)
    sample(**options(model, batch_tokens=700))
    decoded = sum(rows for rows, columns in shapes if columns == 1)
    needed = sum(len(row) for row in whole)
    assert decoded < 1.35 * needed < 0.7 * 24 * len(whole)


@pytest.mark.parametrize("fails_at", [1, 2, 9, 30])
@pytest.mark.parametrize("limit", [1, 3, 7])
def test_out_of_memory_goes_on_with_less(limit: int, fails_at: int) -> None:
    model = unstopped("llama")
    whole = sample(**options(model))
    calls: list[int] = []

    def before(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        calls.append(1)
        if len(calls) >= fails_at and len(kwargs["input_ids"]) > limit:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")

    model.register_forward_pre_hook(before, with_kwargs=True)
    found = list(sample_stream(**options(model)))
    assert [tokens for _, tokens in sorted(found)] == whole
    assert len(found) == len(whole)


def test_a_row_too_large_by_itself_is_named() -> None:
    model = checked(unstopped("llama"))

    def before(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        if kwargs["attention_mask"].shape[1] > 20:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")

    model.register_forward_pre_hook(before, with_kwargs=True)
    prompts = [token_ids(4, 0), token_ids(15, 1)]
    with pytest.raises(InputError, match="prompt 1: out of memory on a single row of 23 tokens"):
        sample(model, None, prompts, max_new_tokens=8)


def test_prompts_of_very_different_length_do_not_share_buffers() -> None:
    model = unstopped("llama")
    model.config.max_position_embeddings = 400
    prompts = [token_ids(300, 0), *(token_ids(4, number) for number in range(1, 9))]
    shapes = passes(model)
    found = sample(model, None, prompts, max_new_tokens=4, temperature=0, batch_tokens=500)
    assert (8, 1) in shapes, "eight short rows fit where one long one does"
    alone = [sample(model, None, [p], max_new_tokens=4, temperature=0)[0] for p in prompts]
    assert found == alone


def hooks(model: Any) -> list[Any]:
    return [
        hook
        for module in model.modules()
        for hook in (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
    ]


def test_nothing_is_on_the_model_between_two_rows() -> None:
    model = unstopped("llama").train()
    stream = sample_stream(**options(model, batch_tokens=400))
    for _ in range(5):
        next(stream)
        assert torch.is_grad_enabled()
        assert model.training
        assert not hooks(model)
        assert all("forward" not in module.__dict__ for module in model.modules())
    stream.close()
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_an_error_leaves_nothing_on_the_model() -> None:
    model = unstopped("llama")

    def broken(module: Any, args: Any) -> None:
        if args[0].shape[1] > 1:
            raise KeyError("broken")

    handle = model.model.layers[2].register_forward_pre_hook(broken)
    with pytest.raises(KeyError):
        sample(**options(model))
    handle.remove()
    assert not hooks(model)
    assert torch.is_grad_enabled()
    assert all("forward" not in module.__dict__ for module in model.modules())


def test_a_full_context_is_used() -> None:
    model = unstopped("gpt2")
    prompt = token_ids(CONTEXT - 6, 3)
    found = sample(model, None, [prompt, prompt[:9]], max_new_tokens=6, temperature=0)
    nothing = torch.zeros(WIDTH)
    for row, ids in enumerate((prompt, prompt[:9])):
        assert found[row] == generated(model, ids, nothing, "all", 6)


def test_blocks_keep_a_forward_of_their_own() -> None:
    model = unstopped("llama")
    block = model.model.layers[0]
    block.forward = block.forward  # as accelerate's dispatch sets it on the instance
    own = block.__dict__["forward"]
    sample(**options(model))
    assert block.__dict__["forward"] is own


def test_rows_moved_after_longer_ones_ended_keep_what_they_have_read() -> None:
    """Long rows end, the cache shifts left, and short rows move to slots that long ones had."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        eos_token_id=1,
        bos_token_id=0,
        pad_token_id=0,
        initializer_range=0.3,
    )
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        model.lm_head.weight[1] = model.lm_head.weight[2:].mean(0)
    for trial in (12, 73, 108):
        draw = random.Random(trial)
        rows, long = draw.choice([18, 24, 30]), draw.choice([6, 9, 12])
        lengths = [60 if row < long else 2 for row in range(rows)]
        prompts = [[draw.randrange(2, 64) for _ in range(length)] for length in lengths]
        budget = 225 * draw.choice([8, 12]) * 4 // 3 + 5
        options: dict[str, Any] = {"max_new_tokens": 120, "seed": trial}
        together = sample(model, None, prompts, batch_tokens=budget, **options)
        for row, prompt in enumerate(prompts):
            assert sample(model, None, [prompt], streams=[row], **options)[0] == together[row]
