"""Under the rules a model without biases and with fixed patterns is linear in the residual."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from deltalens.lm.gradients.relp.patches import Rules
from deltalens.lm.several import resolve_sites
from helpers.families import build

FAMILIES = [
    "llama",
    "llama-tied",
    "qwen2",
    "qwen3",
    "gemma2",
    "gemma3",
    "gemma3-nested",
    "mistral",
    "phi3",
    "olmo2",
    "gpt2",
    "gpt-neox",
]
IDS = torch.tensor([[1, 5, 9, 33, 7, 12, 40, 8]])


def block(model: Any, number: int) -> Any:
    return resolve_sites(model, [number])[0].module


@contextmanager
def graph_from(module: Any) -> Iterator[list[Tensor]]:
    """The block's output as a leaf, once a pass without a graph has reached it."""
    leaves: list[Tensor] = []

    def begin(_: Any, args: Any, output: Any) -> Any:
        hidden = output[0] if isinstance(output, tuple) else output
        leaves.append(hidden.detach().requires_grad_())
        torch.set_grad_enabled(True)
        return (leaves[0], *output[1:]) if isinstance(output, tuple) else leaves[0]

    handle = module.register_forward_hook(begin)
    try:
        with torch.no_grad():
            yield leaves
    finally:
        handle.remove()


def relevance(model: Any, *, attention: bool) -> tuple[float, float]:
    """Σ gradient · activation over all tokens at a middle block, and the logit it should be."""
    with graph_from(block(model, 1)) as leaves, Rules(model).held(attention=attention):
        logit = model(IDS).logits[0, -1, 5]
    (grad,) = torch.autograd.grad(logit, leaves)
    return float((grad * leaves[0].detach()).sum()), float(logit.detach())


def without_biases(family: str) -> Any:
    model = build(family, torch.float64)
    model.config.get_text_config().final_logit_softcapping = None
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
    return model


@pytest.mark.parametrize("family", FAMILIES)
def test_relevance_is_conserved(family: str) -> None:
    model = without_biases(family)
    with torch.no_grad():
        plain = float(model(IDS).logits[0, -1, 5])
    found, logit = relevance(model, attention=True)
    assert logit == plain
    # Norms of transformers compute in fp32, which is what is left here.
    assert found == pytest.approx(logit, rel=2e-6)


def test_free_patterns_and_biases_are_not_conserved() -> None:
    """The check above can fail."""
    found, logit = relevance(without_biases("llama"), attention=False)
    assert found != pytest.approx(logit, rel=0.01)
    model = without_biases("gpt2")
    with torch.no_grad():
        block(model, 2).mlp.c_proj.bias[::3] = 1.0
    found, logit = relevance(model, attention=True)
    assert found != pytest.approx(logit, rel=0.01)
