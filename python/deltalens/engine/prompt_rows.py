"""Rows for the tensor functions from what hook libraries return: a tensor per batch of prompts."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from deltalens.errors import InputError


class PromptRows(NamedTuple):
    """Token rows of several prompts, in a row.

    acts, grads: [tokens, d_model]; weights: float64 [tokens], 1 / (prompts · tokens of the row's
    prompt), so that a sum over rows is the mean over prompts of the mean over their tokens;
    segments: int64 [prompts + 1], where each prompt begins.
    """

    acts: Tensor
    grads: Tensor
    weights: Tensor
    segments: Tensor


def rows_from(acts: Any, grads: Any, mask: Any = None) -> PromptRows:
    """The rows of cached activations and gradients [prompts, positions, d_model].

    acts, grads: as an entry of a TransformerLens cache or a value saved by nnsight (also its older
    proxies, read by ``.value``); [positions, d_model] is one prompt. mask: [prompts, positions],
    true at tokens that count, such as prompt tokens after BOS and no padding; None for all. Use it
    as ``attribution(rows.acts, rows.grads, W_dec, weights=rows.weights)`` or with
    ``attribution_statistics(rows.acts, rows.grads, W_dec, rows.segments)``.

    Raises :class:`InputError` for other shapes, and for a prompt of which no token counts.
    """
    acts, grads = _batch("acts", acts), _batch("grads", grads)
    if acts.shape != grads.shape:
        raise InputError(
            f"acts and grads must have one shape, got {list(acts.shape)} and {list(grads.shape)}"
        )
    counted = _mask(mask, acts)
    lengths = counted.sum(1)
    if not bool(lengths.all()):
        empty = int((lengths == 0).nonzero()[0])
        raise InputError(f"mask counts no token of prompt {empty}")
    weights = (lengths.double() * len(lengths)).reciprocal().repeat_interleave(lengths)
    segments = torch.nn.functional.pad(lengths.cumsum(0), (1, 0)).cpu()
    return PromptRows(acts[counted], grads[counted.to(grads.device)], weights, segments)


def _batch(name: str, value: Any) -> Tensor:
    tensor = value if isinstance(value, Tensor) else getattr(value, "value", value)
    if not isinstance(tensor, Tensor) or tensor.ndim not in (2, 3):
        found = list(tensor.shape) if isinstance(tensor, Tensor) else f"a {type(tensor).__name__}"
        raise InputError(
            f"{name} must be a tensor [prompts, positions, d_model] or [positions, d_model], "
            f"got {found}"
        )
    tensor = tensor.detach()
    return tensor[None] if tensor.ndim == 2 else tensor


def _mask(mask: Any, acts: Tensor) -> Tensor:
    shape = acts.shape[:2]
    if mask is None:
        return torch.ones(shape, dtype=torch.bool, device=acts.device)
    counted = torch.as_tensor(mask, device=acts.device)
    if counted.ndim == 1:
        counted = counted[None]
    if counted.shape != shape:
        raise InputError(
            f"mask must be [prompts, positions] = {list(shape)}, got {list(counted.shape)}"
        )
    return counted.bool()
