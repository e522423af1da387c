"""Blocks below a site, run once for all rows that are alike there."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from torch import Tensor, nn

from deltalens.lm.sites import text_config


class _BlockReached(Exception):
    """Ends a forward pass: what lies above the block is not needed."""


def output_of(model: Any, inputs: Mapping[str, Any], block: nn.Module) -> Any:
    """What ``block`` returns, in a forward pass that ends there."""
    outputs: list[Any] = []

    def reached(module: Any, args: Any, output: Any) -> None:
        outputs.append(output)
        raise _BlockReached

    handle = block.register_forward_hook(reached)
    try:
        with suppress(_BlockReached):
            model(**inputs)
    finally:
        handle.remove()
    return outputs[0]


def repeated(output: Any, item: Tensor) -> Any:
    """A block's output for the rows ``item`` of it; transformers 4 blocks return (hidden, …)."""
    if isinstance(output, tuple):
        return (repeated(output[0], item), *output[1:])
    return output[item.to(output.device)]


def shares_states(model: Any) -> bool:
    """Whether upper blocks read the keys and values of lower ones."""
    return bool(getattr(text_config(model), "num_kv_shared_layers", 0))
