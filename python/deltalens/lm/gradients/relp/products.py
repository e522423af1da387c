"""Gated products: each factor has half of the product's gradient."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from deltalens.lm.gradients.relp.rules import halved

_PRODUCTS = frozenset({torch.mul, torch.multiply, Tensor.mul, Tensor.__mul__, Tensor.__rmul__})


class GatedProducts(TorchFunctionMode):
    """Halves the gradient of whatever is multiplied with the last value of an activation function.

    That is the gate of an MLP, whichever way its linear maps are written; half of a product's
    gradient is half of both factors'.
    """

    def __init__(self) -> None:
        super().__init__()
        self._activated: Tensor | None = None

    def activated(self, value: Tensor) -> None:
        """An activation function has given ``value``."""
        self._activated = value

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[Any],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        if func not in _PRODUCTS or not any(map(self._is_gate, args)):
            return found
        if not _both_vary(args):  # multiplied with a constant it is still the gate
            self._activated = found
            return found
        self._activated = None
        return halved(found)

    def _is_gate(self, factor: Any) -> bool:
        gate = self._activated
        if gate is None or not isinstance(factor, Tensor):
            return False
        return factor is gate or (
            factor.numel() == gate.numel() and factor.data_ptr() == gate.data_ptr()
        )


def _both_vary(factors: Sequence[Any]) -> bool:
    return all(isinstance(each, Tensor) and each.requires_grad for each in factors)
