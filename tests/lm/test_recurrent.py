"""Activations, gradients and losses of recurrent models: padding on the right changes no row."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from deltalens.lm import Pair, TokenRow, activations, capture, completion_losses, resolve_site
from helpers.families import token_ids
from helpers.recurrent import KINDS, build_recurrent

PAIRS = [
    Pair(
        token_ids(size, 3 * size),
        token_ids(3, 3 * size + 1, bos=False),
        token_ids(5, 3 * size + 2, bos=False),
    )
    for size in (9, 4, 13)
]


def naively(
    model: Any, prompt: list[int], completion: list[int]
) -> tuple[torch.Tensor, torch.Tensor, float]:
    kept: list[torch.Tensor] = []

    def hook(module: Any, args: Any, output: Any) -> Any:
        hidden = output[0] if isinstance(output, tuple) else output
        kept.append(hidden.detach().requires_grad_(True))
        return (kept[0], *output[1:]) if isinstance(output, tuple) else kept[0]

    handle = resolve_site(model, 0).module.register_forward_hook(hook)
    logits = model(torch.tensor([prompt + completion]), use_cache=False).logits
    handle.remove()
    log_p = logits[0, len(prompt) - 1 : -1].log_softmax(-1)
    loss = -log_p[range(len(completion)), completion].sum()
    (grad,) = torch.autograd.grad(loss, kept[0])
    counted = slice(1, len(prompt))
    return kept[0].detach()[0, counted], grad[0, counted], loss.item()


@pytest.mark.parametrize("kind", KINDS)
def test_rows_equal_unbatched_autograd(kind: str) -> None:
    model = build_recurrent(kind, torch.float64)
    for rows in capture(model, None, PAIRS, site=0):
        for completion, grad, loss in (
            (rows.pair.positive, rows.grad_positive, rows.loss_positive),
            (rows.pair.negative, rows.grad_negative, rows.loss_negative),
        ):
            acts, grads, expected = naively(model, rows.pair.prompt, completion)
            assert (rows.acts - acts).norm() < 1e-5 * acts.norm()
            assert (grad - grads).norm() < 1e-5 * grads.norm()
            assert loss == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_activations_and_losses_do_not_depend_on_the_batch(kind: str) -> None:
    model = build_recurrent(kind, torch.float64)
    for number, rows in activations(model, [pair.prompt for pair in PAIRS], site=0):
        acts, _, _ = naively(model, PAIRS[number].prompt, [5])
        assert (rows[1:] - acts).norm() < 1e-5 * acts.norm()
    rows = [TokenRow(pair.prompt, pair.negative, [True] * len(pair.prompt)) for pair in PAIRS]
    expected = [naively(model, row.prompt_ids, row.completion_ids)[2] for row in rows]
    assert completion_losses(model, rows, site=0).tolist() == pytest.approx(expected, rel=1e-6)
