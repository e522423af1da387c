"""Linear layers in float32 by oneDNN's products, where torch's own are MKL's and slower."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

_LARGE = 1 << 18  # weights; of smaller layers the call costs as much as the product


@contextmanager
def fast_products(model: nn.Module) -> Iterator[None]:
    """Within the context the model's large linear layers on a CPU take oneDNN's products.

    What they return differs in rounding. To be entered in inference mode or without gradients;
    layers in other types, of other classes or with a ``forward`` of their own stay as they are.
    """
    served: list[Any] = [*filter(_is_served, model.modules())] if _is_offered() else []
    try:
        for layer in served:
            layer.forward = partial(_linear, layer)
        yield
    finally:
        for layer in served:
            layer.__dict__.pop("forward", None)


def _is_offered() -> bool:
    backends = torch.backends
    return (
        backends.mkl.is_available()
        and backends.mkldnn.is_available()
        and bool(backends.mkldnn.enabled)
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")  # torch's own compiler's, not documented
        and not torch.is_autocast_enabled("cpu")
    )


def _is_served(layer: nn.Module) -> bool:
    if type(layer) is not nn.Linear or "forward" in layer.__dict__:
        return False
    weight = layer.weight
    return (
        type(weight.data) is Tensor  # quantised ones are of classes of their own
        and weight.device.type == "cpu"
        and weight.dtype == torch.float32
        and weight.is_contiguous()
        and weight.numel() >= _LARGE
    )


def _linear(layer: nn.Linear, inputs: Tensor) -> Tensor:
    if inputs.dtype != torch.float32:
        return nn.Linear.forward(layer, inputs)
    product: Tensor = torch.ops.mkldnn._linear_pointwise(
        inputs, layer.weight, layer.bias, "none", [], ""
    )
    return product
