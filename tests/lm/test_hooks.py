"""Running models without side effects, compiled ones included."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from deltalens.lm import Pair, activations, capture, resolve_site, sample, steering
from deltalens.lm.hooks import frozen
from helpers.families import WIDTH, build, token_ids


def test_frozen_restores_every_module_and_parameter() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(), nn.Linear(2, 2))
    model[1].eval()
    model[0].weight.requires_grad_(False)
    inside: list[bool] = []

    def body() -> None:
        with frozen(model):
            inside.extend(parameter.requires_grad for parameter in model.parameters())
            inside.extend(module.training for module in model.modules())
            raise KeyError

    with pytest.raises(KeyError):
        body()
    assert inside == [False] * 8
    assert [module.training for module in model.modules()] == [True, True, False, True]
    assert [p.requires_grad for p in model.parameters()] == [False, True, True, True]


def compiled_whole(model: Any) -> Any:
    return torch.compile(model, backend="eager")


def compiled_in_place(model: Any) -> Any:
    model.compile(backend="eager")
    return model


def compiled_forward(model: Any) -> Any:
    model.forward = torch.compile(model.forward, backend="eager")
    return model


def compiled_blocks(model: Any) -> Any:
    for block in model.model.layers:
        block.compile(backend="eager")
    return model


WAYS = [compiled_whole, compiled_in_place, compiled_forward, compiled_blocks]


@pytest.mark.parametrize("way", WAYS)
def test_compiled_models_are_read_and_steered_as_they_are_written(
    way: Callable[[Any], Any],
) -> None:
    plain, model = build("llama"), way(build("llama"))
    ids = torch.tensor([token_ids(6, 0)])
    with torch.no_grad():
        model(ids)  # compiled before there is a hook
    pairs = [Pair(token_ids(5, 1), [7, 8], [9])]
    direction = torch.ones(WIDTH)
    for site in (1, "blocks.1.hook_mlp_out", "blocks.1.hook_resid_mid", "blocks.0.hook_resid_pre"):
        assert resolve_site(model, site) == resolve_site(plain, site)
        ((_, found),) = activations(model, ids.tolist(), site=site)
        ((_, expected),) = activations(plain, ids.tolist(), site=site)
        assert torch.equal(found, expected)
        (rows,) = capture(model, None, pairs, site=site)
        (wanted,) = capture(plain, None, pairs, site=site)
        assert_close(rows.grad_positive, wanted.grad_positive)
        options = {"site": site, "directions": direction, "strengths": 3.0, "temperature": 0}
        texts = [
            sample(one, None, ids.tolist(), max_new_tokens=5, **options) for one in (model, plain)
        ]
        assert texts[0] == texts[1]
        with torch.no_grad():
            logits = []
            for one in (model, plain):
                with steering(one, site, direction, 3.0):
                    logits.append(one(ids).logits)
        assert_close(logits[0], logits[1])
