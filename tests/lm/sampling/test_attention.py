"""Attention of single queries: the formula in float64, and what is left behind."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from deltalens.lm import sample
from deltalens.lm.sampling import attention, job
from deltalens.lm.sampling.generate import uses_slots
from deltalens.lm.sites import text_config
from helpers.families import FAMILIES, build, token_ids

PRECISION = {torch.float32: 2**-20, torch.bfloat16: 2**-7}
each_type = pytest.mark.parametrize("dtype", PRECISION, ids=str)


@each_type
@pytest.mark.parametrize(("heads", "shared"), [(4, 4), (9, 3), (8, 1)])
def test_it_is_the_formula(heads: int, shared: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    rows, columns, size = 5, 40, 64
    shapes = [(rows, heads, 1, size), *[(rows, shared, columns, size)] * 2]
    made = [torch.randn(shape, generator=generator).to(dtype) for shape in shapes]
    mask = torch.rand(rows, 1, 1, columns, generator=generator) < 0.7
    query, key, value = (tensor.double() for tensor in made)
    key, value = (part.repeat_interleave(heads // shared, 1) for part in (key, value))
    scores = (query @ key.mT / 7).masked_fill(~mask, -torch.inf)
    expected = (scores.softmax(-1) @ value).transpose(1, 2)
    found, _ = attention._attention(SimpleNamespace(), *made, mask, scaling=1 / 7)
    assert found.shape == expected.shape
    error = float((found.double() - expected).abs().max())
    assert error < PRECISION[dtype] * float(value.abs().max())


@pytest.mark.parametrize(
    "option", [{"softcap": 30.0}, {"s_aux": torch.zeros(4)}, {"position_bias": torch.zeros(1)}]
)
def test_what_changes_scores_is_left_to_transformers(
    option: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A soft cap or sinks, left out without a word, would give other texts."""
    given: list[dict[str, Any]] = []

    def recorded(*_: Any, **options: Any) -> tuple[None, None]:
        given.append(options)
        return None, None

    monkeypatch.setattr("transformers.integrations.sdpa_attention.sdpa_attention_forward", recorded)
    states = [torch.zeros(2, 4, 1, 8).bfloat16()] * 3
    attention._attention(SimpleNamespace(), *states, None, **option)
    assert option.keys() <= given[0].keys()


@each_type
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_rows_read_alike_and_the_model_is_as_before(
    family: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, calls, seen = build(family).to(dtype), [], []
    before = model.config._attn_implementation
    plain, chosen = attention._attention, job.choose

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append(args[1].shape[2])
        return plain(*args, **kwargs)

    def recorded(logits: Any, *args: Any) -> Any:
        seen.append(logits.float())
        return chosen(logits, *args)

    monkeypatch.setattr(attention, "_attention", counted)
    monkeypatch.setattr(job, "choose", recorded)
    prompts = [token_ids(length, length) for length in (3, 7)]
    if not uses_slots(model):  # its trial samples, too
        pytest.skip("served by its own generate")
    calls.clear(), seen.clear()
    sample(model, None, prompts, max_new_tokens=2, temperature=0)
    assert (set(calls) == {1}) == (attention._is_slow(model, text_config(model)))
    assert model.config._attn_implementation == before
    (first, second), made = seen[:2], len(calls)
    monkeypatch.setattr(attention, "_is_slow", lambda *_: False)
    seen.clear()
    sample(model, None, prompts, max_new_tokens=2, temperature=0)
    assert len(calls) == made
    assert torch.equal(seen[0], first)
    allowed = 3 * PRECISION[dtype] * float(second.max() - second.min())
    assert float((seen[1] - second).abs().max()) < allowed


@pytest.mark.parametrize(("shared", "packs", "slow"), [
    (4, True, True), (2, True, False), (2, False, True), (None, True, True),
])  # fmt: skip
def test_in_float32_it_is_for_keys_that_are_not_shared_or_would_be_repeated(
    shared: int | None, packs: bool, slow: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build("llama", torch.float32)
    config = text_config(model)
    monkeypatch.setattr(config, "_attn_implementation", "sdpa")
    monkeypatch.setattr(config, "num_attention_heads", 4)
    monkeypatch.setattr(config, "num_key_value_heads", shared)
    monkeypatch.setattr(attention, "_packs_queries", lambda: packs)
    assert attention._is_slow(model, config) is slow
    assert attention._is_slow(model.bfloat16(), config)


def test_rows_of_other_types_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "_attention", None)
    assert sample(build("llama").double(), None, [token_ids(3, 3)], max_new_tokens=3)
