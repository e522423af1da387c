"""One forward pass of a batch with what happens at sites under control, and its losses."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from deltalens.errors import InputError
from deltalens.lm.hooks import input_device
from deltalens.lm.rows import RowBatch
from deltalens.lm.targets.head import HeadInput, read_to_head, surprisals, surprisals_and_gradient
from deltalens.lm.targets.measure import measured, measured_and_gradient

Loss = Literal["sum", "mean"]
LOSSES = ("sum", "mean")


def check_loss(loss: str) -> None:
    """Raise :class:`InputError` unless ``loss`` is one of :data:`LOSSES`."""
    if loss not in LOSSES:
        raise InputError(f"loss must be one of {', '.join(LOSSES)}, got {loss!r}")


@dataclass(frozen=True)
class Slope:
    """The ``gradient`` of all rows' losses at ``hidden``, the head's input, both [tokens, d]."""

    hidden: Tensor
    gradient: Tensor


def batch_losses(
    model: Any, batch: RowBatch, hooks: AbstractContextManager[Any], loss: Loss
) -> Tensor:
    """-log p of each row's completion [rows], or what its objective is, by a forward pass within
    ``hooks``.

    Logits exist at the positions that losses look at only, a chunk of them at a time; log p is
    taken in float32 (float64 for float64 models), and nothing is cached. "mean" divides by the
    number of tokens that count, or by the sum of their weights' sizes.
    """
    states, batch = _at_head(model, batch, hooks)
    if any(batch.measures):
        return measured(states, batch)
    return _row_losses(surprisals(states, batch.targets), batch, loss)


def batch_surprisals(model: Any, batch: RowBatch, hooks: AbstractContextManager[Any]) -> Tensor:
    """-log p of every completion token of the batch, in the order of its targets: [tokens]."""
    states, batch = _at_head(model, batch, hooks)
    return surprisals(states, batch.targets)


def batch_slope(
    model: Any, batch: RowBatch, hooks: AbstractContextManager[Any], loss: Loss
) -> tuple[Tensor, Slope]:
    """As :func:`batch_losses`, and how the losses' sum changes with the head's input.

    The losses have no graph; the slope's ``hidden`` has the one that ``hooks`` started.
    """
    states, batch = _at_head(model, batch, hooks)
    if any(batch.measures):
        losses, gradient = measured_and_gradient(states, batch)
        return losses, Slope(states.hidden, gradient)
    weights = batch.weights
    if weights is None:
        weights = torch.ones_like(batch.targets, dtype=torch.float64)
    if loss == "mean":
        weights = weights / _sizes(batch)[batch.target_rows]
    found, gradient = surprisals_and_gradient(states, batch.targets, weights)
    return _row_losses(found, batch, loss), Slope(states.hidden, gradient)


def _at_head(
    model: Any, batch: RowBatch, hooks: AbstractContextManager[Any]
) -> tuple[HeadInput, RowBatch]:
    """The completions' hidden states in front of the head, and the batch on their device."""
    batch = batch.to(input_device(model))
    inputs = {**batch.model_inputs(), "use_cache": False}
    with hooks:
        states = read_to_head(model, inputs, _at_completions(batch))
    return states, batch.to(states.hidden.device)


def _at_completions(batch: RowBatch) -> Callable[[Tensor], Tensor]:
    """From hidden states [rows, seq, d_model] to the completions' [tokens, d_model]."""

    def select(hidden: Tensor) -> Tensor:
        local = batch.to(hidden.device)
        return hidden[local.target_rows, local.target_positions]

    return select


def _row_losses(surprisals: Tensor, batch: RowBatch, loss: Loss) -> Tensor:
    batch = batch.to(surprisals.device)
    if batch.weights is not None:
        surprisals = surprisals * batch.weights.to(surprisals)
    totals = _row_sums(surprisals, batch)
    if loss == "mean":
        totals = totals / _sizes(batch).to(totals.dtype)
    return totals


def _sizes(batch: RowBatch) -> Tensor:
    """How much each row's tokens count [rows]: their number, or the sum of their weights' sizes."""
    if batch.weights is None:
        return torch.bincount(batch.target_rows)
    return _row_sums(batch.weights.abs(), batch)


def _row_sums(values: Tensor, batch: RowBatch) -> Tensor:
    """Of ``values`` of every target: [rows]."""
    # Placed in a grid and summed: a scattered addition would not be repeatable on a GPU.
    grid = values.new_zeros(len(batch.rows), int(batch.offsets.max()) + 1)
    return grid.index_put((batch.target_rows, batch.offsets), values).sum(dim=1)
