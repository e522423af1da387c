"""Replacing a block's output, whatever a block returns."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from deltalens.lm.hooks import frozen, replacing
from deltalens.lm.sites import Site


class Block(nn.Module):
    def __init__(self, result: Any) -> None:
        super().__init__()
        self.result = result

    def forward(self) -> Any:
        return self.result


HIDDEN = torch.ones(2, 3, 4)


@pytest.mark.parametrize(
    ("result", "expected"),
    [(HIDDEN, 3 * HIDDEN), ((HIDDEN,), (3 * HIDDEN,)), ((HIDDEN, "more"), (3 * HIDDEN, "more"))],
)
def test_tensors_and_tuples(result: Any, expected: Any) -> None:
    block = Block(result)
    with replacing(Site(0, "block", block, 4, 1), lambda hidden: 3 * hidden):
        found = block()
    assert type(found) is type(expected)
    parts = zip(found, expected, strict=True) if isinstance(found, tuple) else [(found, expected)]
    for part, wanted in parts:
        assert torch.equal(part, wanted) if isinstance(part, Tensor) else part == wanted
    assert block() is result


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
