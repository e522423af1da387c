"""Integrated gradients: completeness, and steps against gradients by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from deltalens.lm import Pair, capture
from helpers.families import (
    WIDTH,
    build,
    token_ids,
)

PAIRS = [
    Pair(token_ids(9, 1), token_ids(3, 2, bos=False), token_ids(2, 3, bos=False)),
    Pair(token_ids(5, 4), token_ids(1, 5, bos=False), token_ids(6, 6, bos=False)),
]
LAYER = 1


def baseline() -> torch.Tensor:
    return 0.3 * torch.randn(WIDTH, generator=torch.Generator().manual_seed(0))


def loss_and_gradient(
    model: Any,
    prompt: list[int],
    completion: list[int],
    fraction: float,
    start: Callable[[torch.Tensor], torch.Tensor] = lambda acts: baseline(),
) -> tuple[float, torch.Tensor]:
    """Loss and gradient [T, d] with counted tokens at s + fraction·(a − s), on a single row."""
    leaves: list[torch.Tensor] = []

    def hook(module: Any, args: Any, output: Any) -> Any:
        hidden = output[0] if isinstance(output, tuple) else output
        moved = hidden.detach().clone()
        counted = moved[0, 1 : len(prompt)]
        begin = start(counted)
        moved[0, 1 : len(prompt)] = begin + fraction * (counted - begin)
        leaves.append(moved.requires_grad_(True))
        return (moved, *output[1:]) if isinstance(output, tuple) else moved

    handle = model.model.layers[LAYER].register_forward_hook(hook)
    logits = model(torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1]
    handle.remove()
    loss = torch.nn.functional.cross_entropy(logits, torch.tensor(completion), reduction="sum")
    (grad,) = torch.autograd.grad(loss, leaves[0])
    return loss.item(), grad[0, 1 : len(prompt)]


@pytest.mark.parametrize("family", ["llama", "gemma3"])
def test_steps_are_gradients_at_midpoints(family: str) -> None:
    model = build(family)
    options = {"gradients": "integrated", "baseline": baseline(), "steps": 3}
    for rows in capture(model, None, PAIRS, site=LAYER, **options):
        pair = rows.pair
        for completion, found in (
            (pair.positive, rows.grad_positive),
            (pair.negative, rows.grad_negative),
        ):
            steps = [
                loss_and_gradient(model, pair.prompt, completion, a)[1] for a in (1 / 6, 0.5, 5 / 6)
            ]
            expected = torch.stack(steps).mean(0).float()
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)


def test_a_start_of_each_tokens_own() -> None:
    """From half of each activation with a part of its own added: a way that no baseline gives."""
    model, pair = build("llama"), PAIRS[0]

    def start(acts: torch.Tensor) -> torch.Tensor:
        return acts / 2 + acts.norm(dim=1)[:, None] * baseline() / 10

    (rows,) = capture(
        model, None, PAIRS[:1], site=LAYER, gradients="integrated", baseline=start, steps=2
    )
    for completion, found in (
        (pair.positive, rows.grad_positive),
        (pair.negative, rows.grad_negative),
    ):
        steps = [
            loss_and_gradient(model, pair.prompt, completion, a, start)[1] for a in (0.25, 0.75)
        ]
        expected = torch.stack(steps).mean(0).float()
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)


def test_completeness() -> None:
    model = build("llama")
    errors = []
    for steps in (8, 64):
        rows = next(
            capture(
                model,
                None,
                PAIRS,
                site=LAYER,
                gradients="integrated",
                baseline=baseline(),
                steps=steps,
            )
        )
        pair = rows.pair
        at_baseline, _ = loss_and_gradient(model, pair.prompt, pair.positive, 0.0)
        summed = ((rows.acts - baseline()) * rows.grad_positive).double().sum().item()
        errors.append(abs(summed - (rows.loss_positive - at_baseline)))
        assert abs(rows.loss_positive - at_baseline) > 0.3
    assert errors[1] < 1e-3
    assert errors[1] < errors[0] / 8  # the midpoint rule is of second order


def test_activations_and_losses_are_those_of_the_unmoved_model() -> None:
    model = build("llama")
    integrated = capture(
        model, None, PAIRS, site=LAYER, gradients="integrated", baseline=baseline(), steps=1
    )
    for rows, plain in zip(integrated, capture(model, None, PAIRS, site=LAYER), strict=True):
        assert torch.equal(rows.acts, plain.acts)
        assert rows.loss_positive == pytest.approx(plain.loss_positive, rel=1e-12)
        assert rows.loss_negative == pytest.approx(plain.loss_negative, rel=1e-12)
        assert not torch.allclose(rows.grad_positive, plain.grad_positive, rtol=0.01)


def test_bfloat16_models_are_moved_in_float32() -> None:
    model = build("llama", torch.bfloat16)
    start = torch.full((WIDTH,), 100.0)
    (rows,) = capture(
        model, None, PAIRS[:1], site=LAYER, gradients="integrated", baseline=start, steps=2
    )
    assert rows.grad_positive.dtype == torch.float32
    assert rows.grad_positive.isfinite().all()
