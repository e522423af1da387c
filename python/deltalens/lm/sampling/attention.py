"""Attention of one new token a row on a CPU, where torch's own kernel is slow."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from deltalens.lm.hooks import input_device
from deltalens.lm.sites import text_config

_NAME = "deltalens_one_query"
_OF_POSITIONS = ("position_ids", "cache_position")  # tensors that say where, and change no score


@contextmanager
def one_query_attention(model: Any) -> Iterator[None]:
    """Within the context, attention of a single query by plain products.

    For models on a CPU that use torch's fused attention through transformers' interface, where that
    is faster: in bfloat16 (three to four times as fast on 256 rows), and in float32 where queries
    share no keys, or where transformers, in its version 4, repeats those that are shared. Others
    are left as they are.
    """
    config = text_config(model)
    if not _is_slow(model, config):
        yield
        return
    _register()
    before = config._attn_implementation
    config._attn_implementation = _NAME
    try:
        yield
    finally:
        config._attn_implementation = before


def _is_slow(model: Any, config: Any) -> bool:
    return (
        getattr(model, "_supports_attention_backend", False)
        and getattr(config, "_attn_implementation", None) == "sdpa"
        and input_device(model).type == "cpu"
        and (
            model.dtype == torch.bfloat16
            or (model.dtype == torch.float32 and not (_shares_keys(config) and _packs_queries()))
        )
    )


def _shares_keys(config: Any) -> bool:
    shared = getattr(config, "num_key_value_heads", None)
    return shared is not None and bool(shared != getattr(config, "num_attention_heads", shared))


def _packs_queries() -> bool:
    """Whether transformers holds queries that share keys against these at once."""
    from transformers.integrations import sdpa_attention

    return hasattr(sdpa_attention, "pack_gqa")


def _register() -> None:
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(_NAME, _attention)
    AttentionMaskInterface.register(_NAME, sdpa_mask)


def _attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """As transformers asks for it: [rows, heads, tokens, head_dim] to [rows, tokens, heads, …]."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if query.shape[2] != 1 or not _is_plain(attention_mask, kwargs):
        options = {"dropout": dropout, "scaling": scaling, **kwargs}
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    rows, heads, _, size = query.shape
    grouped = query.reshape(rows, key.shape[1], heads // key.shape[1], size)
    scores = (grouped @ key.transpose(2, 3)).float()
    scores *= size**-0.5 if scaling is None else scaling
    if attention_mask is not None:
        scores.masked_fill_(~attention_mask, -torch.inf)
    mixed = scores.softmax(-1).to(value.dtype) @ value
    return mixed.reshape(rows, 1, heads, value.shape[3]), None


def _is_plain(mask: Tensor | None, options: dict[str, Any]) -> bool:
    """Whether nothing changes the scores but a mask that all heads share: no soft cap, no bias."""
    changed = options.get("softcap") is not None or any(
        isinstance(value, Tensor) and name not in _OF_POSITIONS for name, value in options.items()
    )
    shared = mask is None or (mask.dtype == torch.bool and mask.shape[1] == 1)
    return shared and not changed
