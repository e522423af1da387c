"""Log-losses of completions, as they are or with the site's output edited."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from deltalens.cost.pace import advance
from deltalens.errors import InputError
from deltalens.lm.batching import BATCH_TOKENS, TokenBudget, run_batches
from deltalens.lm.forward import Loss, batch_losses, check_loss
from deltalens.lm.hooks import frozen, without_graph
from deltalens.lm.model.independence import check_readable
from deltalens.lm.points.replacing import replacing
from deltalens.lm.progress import Progress
from deltalens.lm.rows import RowBatch, TokenRow, pad_rows
from deltalens.lm.sites import Site, resolve_site
from deltalens.lm.tokenise import check_context, check_ids

Edit = Callable[[Tensor, RowBatch], Tensor]


def completion_losses(
    model: Any,
    rows: Sequence[TokenRow],
    *,
    site: int | str | Site,
    edit: Edit | None = None,
    loss: Loss = "sum",
    batch_tokens: int = BATCH_TOKENS,
    progress: bool = False,
) -> Tensor:
    """-log p(completion | prompt) of every row: float64 [rows] on the CPU, in the order given.

    ``edit(hidden [b, seq, d_model], batch)`` returns what replaces the site's output (same shape;
    its dtype and device are put right). ``batch.rows`` are positions in ``rows`` and
    ``batch.counted`` is true at counted prompt tokens, both on ``hidden``'s device. Rows are
    independent: neither their order nor their batches change a result beyond rounding. No
    gradients are kept. Raises :class:`InputError` for rows that do not fit the model and for
    losses that are NaN or infinite.
    """
    check_loss(loss)
    where = resolve_site(model, site)
    check_readable(model)
    _check_rows(model, rows)

    def run(numbers: list[int]) -> list[float]:
        with frozen(model), without_graph():
            batch = pad_rows([rows[number] for number in numbers], numbers)
            hooks = replacing(where, _at_site(edit, batch))
            losses = batch_losses(model, batch, hooks, loss)
        advance(sum(rows[number].length for number in numbers))
        return losses.tolist()

    losses = torch.empty(len(rows), dtype=torch.float64)
    batches = run_batches(
        [[number] for number in range(len(rows))],
        [row.length for row in rows],
        run,
        TokenBudget(batch_tokens),
        _label,
    )
    with Progress(progress, "losses", len(rows)) as bar:
        for number, value in batches:
            losses[number] = value
            bar.advance()
    _check_finite(losses)
    return losses


def _at_site(edit: Edit | None, batch: RowBatch) -> Callable[[Tensor], Tensor]:
    def at_site(hidden: Tensor) -> Tensor:
        return hidden if edit is None else edit(hidden, batch.to(hidden.device)).to(hidden)

    return at_site


def _check_rows(model: Any, rows: Sequence[TokenRow]) -> None:
    for number, row in enumerate(rows):
        label = _label(number)
        if not row.prompt_ids or not row.completion_ids:
            raise InputError(f"{label}: prompt and completion must have at least one token each")
        if len(row.counted) != len(row.prompt_ids):
            raise InputError(
                f"{label}: counted has {len(row.counted)} flags "
                f"for {len(row.prompt_ids)} prompt tokens"
            )
        ids = row.prompt_ids + row.completion_ids
        check_ids(model, ids, label)
        check_context(model, len(ids), f"{label}: prompt + completion")


def _check_finite(losses: Tensor) -> None:
    bad = (~torch.isfinite(losses)).nonzero().flatten().tolist()
    if bad:
        raise InputError(
            f"{_label(bad[0])}: the loss is {losses[bad[0]].item()} ({len(bad)} rows in all); "
            "check the model's weights and the edit, or load the model in bfloat16 or float32"
        )


def _label(number: int) -> str:
    return f"row {number}"
