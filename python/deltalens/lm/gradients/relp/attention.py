"""Attention whose patterns are fixed numbers: only values carry a gradient."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from deltalens.errors import InputError

_PREFIX = "deltalens_fixed_"


@contextmanager
def fixed_patterns(model: Any) -> Iterator[None]:
    """Let the model's attention function take queries and keys without their graph.

    A function of that kind is registered with transformers, and the model told to use it; a model
    that does not ask transformers for its attention function raises :class:`InputError`.
    """
    from transformers import AttentionInterface, AttentionMaskInterface

    config = model.config.get_text_config()
    usual = config._attn_implementation
    calls: list[str] = []
    name = f"{_PREFIX}{usual}"
    AttentionInterface.register(name, _without_graph(usual, AttentionInterface(), calls))
    masks = AttentionMaskInterface()
    if usual in masks:
        AttentionMaskInterface.register(name, masks[usual])
    config._attn_implementation = name
    try:
        yield
    finally:
        config._attn_implementation = usual
        AttentionInterface._global_mapping.pop(name)
        AttentionMaskInterface._global_mapping.pop(name, None)
    if not calls:
        raise InputError(
            f"{type(model).__name__} does not take its attention function from transformers, so "
            "its patterns cannot be fixed; use gradients='relp'"
        )


def _without_graph(usual: str, known: Any, calls: list[str]) -> Callable[..., Any]:
    def attend(module: Any, query: Tensor, key: Tensor, *rest: Any, **options: Any) -> Any:
        calls.append(usual)
        attention = known[usual] if usual in known else _eager(module)
        return attention(module, query.detach(), key.detach(), *rest, **options)

    return attend


def _eager(module: Any) -> Callable[..., Any]:
    """The function that a model's own file has for it."""
    found: Callable[..., Any] = sys.modules[type(module).__module__].eager_attention_forward
    return found
