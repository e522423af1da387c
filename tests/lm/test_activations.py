"""Residual rows of whole sequences."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from deltalens.errors import InputError
from deltalens.lm import activations
from helpers.families import (
    CONTEXT,
    FAMILIES,
    assert_rows_close,
    build,
    checked,
    exact,
    token_ids,
)

SIZES = [4, 11, 1, 20, 7, 11]


def sequences() -> list[list[int]]:
    return [token_ids(size, number) for number, size in enumerate(SIZES)]


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_equal_unbatched_hidden_states(family: str) -> None:
    model = build(family)
    found = list(activations(model, sequences(), site=1))
    assert [number for number, _ in found] == list(range(len(SIZES)))
    for ids, (_, rows) in zip(sequences(), found, strict=True):
        assert rows.dtype == torch.float32
        assert_rows_close(rows, hidden_alone(model, ids), hidden_alone(exact(model), ids))


@torch.no_grad()
def hidden_alone(model: Any, ids: list[int]) -> torch.Tensor:
    return model(torch.tensor([ids]), output_hidden_states=True).hidden_states[2][0]


def test_blocks_above_the_site_do_not_run() -> None:
    model = checked(build("llama"))
    ran: list[int] = []
    for layer, block in enumerate(model.model.layers):
        block.register_forward_hook(lambda *_, layer=layer: ran.append(layer))
    list(activations(model, sequences(), site=1))
    assert ran == [0, 1]
    model(torch.tensor([[1, 2]]))
    assert ran == [0, 1, 0, 1, 2]
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_sequences_are_read_as_far_as_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["deltalens.lm.activations"], "_WINDOW", 2)
    read: list[int] = []

    def source() -> Iterator[list[int]]:
        for number, ids in enumerate(sequences()):
            read.append(number)
            yield ids

    model = build("llama")
    stream = activations(model, source(), site=1)
    assert next(stream)[0] == 0
    assert read == [0, 1]
    found = [(0, None), *stream]
    assert [number for number, _ in found] == list(range(len(SIZES)))
    whole = dict(activations(model, sequences(), site=1, batch_tokens=1))
    for number, rows in found[1:]:
        torch.testing.assert_close(rows, whole[number])


def test_out_of_memory_backs_off() -> None:
    model = build("llama")

    def before(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        if len(kwargs["input_ids"]) > 1:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")

    model.register_forward_pre_hook(before, with_kwargs=True)
    assert [len(rows) for _, rows in activations(model, sequences(), site=1)] == SIZES


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([], "sequence 1 has no tokens"),
        ([1, 97], "sequence 1: token id 97"),
        ([1] * (CONTEXT + 1), "sequence 1 = 65 tokens; the model's context is 64"),
    ],
)
def test_sequences_that_do_not_fit_are_named(ids: list[int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        list(activations(build("llama"), [[1, 2], ids], site=0))


def test_nan_names_the_sequence() -> None:
    model = build("llama")
    with torch.no_grad():
        model.model.embed_tokens.weight[95] = float("nan")
    with pytest.raises(InputError, match=r"sequence 1: activations at blocks\.0\.\w+ are NaN"):
        list(activations(model, [[1, 2], [1, 95]], site=0))


def test_unknown_sites_are_refused_at_the_call() -> None:
    with pytest.raises(InputError, match="no site 7"):
        activations(build("llama"), [], site=7)
