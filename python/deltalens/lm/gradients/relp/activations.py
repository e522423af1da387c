"""Activation functions: which modules are one, and their slope at 0."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from deltalens.errors import InputError


def is_activation(module: nn.Module) -> bool:
    """Whether a module is one of the elementwise functions that MLPs use, torch's or another's."""
    if any(True for _ in module.parameters()) or any(True for _ in module.children()):
        return False
    from transformers.activations import ACT2CLS

    classes = {each[0] if isinstance(each, tuple) else each for each in ACT2CLS.values()}
    own = type(module).__name__.lower()
    return type(module) in classes or own.endswith(("gelu", "silu", "activation"))


def slope_at_zero(module: Any, name: str) -> float:
    """φ′(0); :class:`InputError` where φ(0) is not 0, so that φ(z)/z has no limit there."""
    zero = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    with torch.enable_grad():
        value = module.forward(zero)
        (slope,) = torch.autograd.grad(value.sum(), zero)
    if float(value.detach()) != 0.0:
        raise InputError(
            f"{name} ({type(module).__name__}) is not 0 at 0, so relp's rule for activation "
            "functions does not hold for it; use gradients='plain' or 'integrated'"
        )
    return float(slope)
