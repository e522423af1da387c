"""What the caller has done to torch's gradients makes no difference and stays as it is."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch

from deltalens.errors import InputError
from deltalens.lm import Pair, TokenRow, activations, capture, completion_losses, sample
from helpers.families import WIDTH, build, token_ids

PAIRS = [
    Pair(token_ids(9, 1), token_ids(3, 2, bos=False), token_ids(2, 3, bos=False)),
    Pair(token_ids(5, 4), token_ids(1, 5, bos=False), token_ids(6, 6, bos=False)),
]
MODES: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "gradients": nullcontext,
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
}


def mode() -> tuple[bool, bool]:
    return torch.is_grad_enabled(), torch.is_inference_mode_enabled()


def captured(model: Any, gradients: str) -> list[torch.Tensor]:
    options = {"gradients": gradients, "baseline": torch.zeros(WIDTH), "steps": 2}
    found = []
    for rows in capture(model, None, PAIRS, site=1, **options):
        found += [rows.acts, rows.grad_positive, rows.grad_negative]
    return found


def lost(model: Any) -> list[torch.Tensor]:
    rows = [TokenRow(pair.prompt, pair.positive, [True] * len(pair.prompt)) for pair in PAIRS]
    return [completion_losses(model, rows, site=1, edit=lambda hidden, batch: hidden + 1)]


def read(model: Any) -> list[torch.Tensor]:
    return [rows for _, rows in activations(model, [pair.prompt for pair in PAIRS], site=1)]


def sampled(model: Any) -> list[torch.Tensor]:
    steered = {"site": 1, "directions": torch.ones(WIDTH), "strengths": 2.0}
    rows = sample(model, None, [pair.prompt for pair in PAIRS], max_new_tokens=4, **steered)
    return [torch.tensor(row) for row in rows]


@pytest.mark.parametrize("within", ["no_grad", "inference_mode"])
@pytest.mark.parametrize("family", ["llama", "gemma3", "gpt2"])
def test_results_do_not_depend_on_the_mode(family: str, within: str) -> None:
    model = build(family, torch.float32)
    works: list[Callable[[], list[torch.Tensor]]] = [
        lambda: captured(model, "plain"),
        lambda: captured(model, "integrated"),
        lambda: lost(model),
        lambda: read(model),
        lambda: sampled(model),
    ]
    for work in works:
        expected = work()
        with MODES[within]():
            before = mode()
            found = work()
            assert mode() == before
        assert all(map(torch.equal, found, expected))
        assert not any(values.requires_grad for values in found)
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("first", MODES)
@pytest.mark.parametrize("second", MODES)
def test_the_mode_may_change_between_two_pairs(
    first: str, second: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build("llama", torch.float32)
    expected = captured(model, "plain")
    with MODES[first]():
        stream = capture(model, None, PAIRS, site=1, batch_tokens=1)
        one = next(stream)
        left = mode()
    with MODES[second]():
        before = mode()
        two = next(stream)
        assert mode() == before
        two.acts.clone().add_(one.acts[:1])
    assert left[1] == (first == "inference_mode")
    for rows, acts in ((one, expected[0]), (two, expected[3])):
        torch.testing.assert_close(rows.acts, acts)
        assert not rows.acts.is_inference()
        rows.acts.mul_(2)  # an inference tensor could not be changed here


def test_models_made_in_inference_mode() -> None:
    ordinary = build("llama", torch.float32)
    with torch.inference_mode():
        model = build("llama", torch.float32)
    for within in MODES.values():
        with within():
            for work in (lost, read, sampled):
                assert all(map(torch.equal, work(model), work(ordinary)))
            with pytest.raises(InputError, match=r"made in torch.inference_mode\(\)"):
                capture(model, None, PAIRS, site=1)
