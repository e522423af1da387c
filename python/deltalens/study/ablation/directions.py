"""What ablating directions moves at every token: to the mean, or to another prompt's token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from deltalens.lm import EncodedPair, RowBatch, Site
from deltalens.lm.gradients.counterparts import counterpart_rows
from deltalens.lm.targets.losses import Edit

Toward = Callable[[Tensor, RowBatch], Tensor]


def direction_ablation(
    model: Any,
    encoded: Sequence[EncodedPair],
    units: Tensor,
    *,
    site: Site,
    mean: Tensor,
    batch_tokens: int,
) -> Edit:
    """An edit under which row r ablates ``units[r % (k + 1) - 1]``, and none where r % (k + 1) = 0:
    at every counted token the projection becomes that of ``mean`` or, of aligned pairs, of the
    counterpart.

    Computed in fp32, or in the model's own dtype where that is wider. Rows are those of pairs, two
    completions each, as the caller orders them; counterparts are read once, and kept.
    """
    if not encoded or encoded[0].counterpart is None:
        return _ablation(units, lambda wide, _: mean.to(wide))
    there = [
        rows
        for (rows,) in counterpart_rows(
            model, [encoded], [site], first=1, batch_tokens=batch_tokens
        )
    ]
    rows_of_pair = 2 * (1 + len(units))

    def counterparts(wide: Tensor, batch: RowBatch) -> Tensor:
        placed = wide.clone()
        for at, row in enumerate(batch.rows.tolist()):
            placed[at, batch.counted[at]] = there[row // rows_of_pair].to(wide)
        return placed

    return _ablation(units, counterparts)


def _ablation(units: Tensor, toward: Toward) -> Edit:
    directions = torch.cat([torch.zeros_like(units[:1]), units])

    def edit(hidden: Tensor, batch: RowBatch) -> Tensor:
        wide = hidden.to(torch.promote_types(hidden.dtype, torch.float32))
        chosen = directions[batch.rows.cpu() % len(directions)].to(wide)
        centred = wide - toward(wide, batch)
        projection = torch.einsum("btd,bd->bt", centred, chosen) * batch.counted.to(wide)
        return (wide - projection[:, :, None] * chosen[:, None, :]).to(hidden.dtype)

    return edit
