"""One forward pass of a batch with its site's output under control and its completions' losses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from deltalens.errors import InputError
from deltalens.lm.hooks import input_device, replacing
from deltalens.lm.rows import RowBatch
from deltalens.lm.sites import Site

Loss = Literal["sum", "mean"]
LOSSES = ("sum", "mean")


def check_loss(loss: str) -> None:
    """Raise :class:`InputError` unless ``loss`` is one of :data:`LOSSES`."""
    if loss not in LOSSES:
        raise InputError(f"loss must be one of {', '.join(LOSSES)}, got {loss!r}")


def batch_losses(
    model: Any, batch: RowBatch, site: Site, at_site: Callable[[Tensor], Tensor], loss: Loss
) -> Tensor:
    """-log p of each row's completion [rows], the site's output replaced by ``at_site(output)``.

    Logits exist at completion positions only, cross entropy is taken in float32 (float64 for
    float64 models), and nothing is cached. "mean" divides by the completion's length.
    """
    batch = batch.to(input_device(model))
    with replacing(site, at_site), head_input(model, _at_completions(batch)):
        logits = model(**batch.model_inputs(), use_cache=False).logits[0]
    return _row_losses(logits, batch.to(logits.device), loss)


@contextmanager
def head_input(model: Any, select: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Within the context the model's head sees ``select(hidden)`` in place of ``hidden``.

    Selecting in front of the head, not through ``logits_to_keep``, works for every family and
    leaves what it does to its logits afterwards (soft-capping, scaling) to the family.
    """
    head = model.get_output_embeddings()
    if head is None:
        raise InputError(
            f"{type(model).__name__} has no language-model head; load it as a causal language model"
        )

    def before(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (select(args[0]), *args[1:])

    handle = head.register_forward_pre_hook(before)
    try:
        yield
    finally:
        handle.remove()


def _at_completions(batch: RowBatch) -> Callable[[Tensor], Tensor]:
    """From hidden states [rows, seq, d_model] to the completions' [1, tokens, d_model]."""

    def select(hidden: Tensor) -> Tensor:
        local = batch.to(hidden.device)
        return hidden[local.target_rows, local.target_positions].unsqueeze(0)

    return select


def _row_losses(logits: Tensor, batch: RowBatch, loss: Loss) -> Tensor:
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    surprisals = nn.functional.cross_entropy(wide, batch.targets, reduction="none")
    # Placed in a grid and summed: a scattered addition would not be repeatable on a GPU.
    grid = surprisals.new_zeros(len(batch.rows), int(batch.offsets.max()) + 1)
    grid = grid.index_put((batch.target_rows, batch.offsets), surprisals)
    totals = grid.sum(dim=1)
    if loss == "mean":
        totals = totals / torch.bincount(batch.target_rows).to(totals.dtype)
    return totals
