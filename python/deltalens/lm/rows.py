"""Prompts with completions as the padded rows of one batch."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from deltalens.lm.targets.objectives import Aim, Answers, Measure, Objective, Written, every_token

PaddingSide = Literal["right", "left"]


@dataclass(frozen=True)
class TokenRow:
    """One prompt with one completion; ``counted`` has a flag for each prompt token.

    ``objective``: what its loss is; None: the log-loss of the completion.
    """

    prompt_ids: list[int]
    completion_ids: list[int]
    counted: list[bool]
    objective: Objective | None = None

    @property
    def aims(self) -> list[Aim]:
        """The places of the completion whose predictions its loss looks at."""
        if self.objective is None:
            return every_token(self.completion_ids)
        return self.objective.aims(self.completion_ids)

    @property
    def length(self) -> int:
        """Tokens the model reads: what is at the last of those places is only ever predicted."""
        return len(self.prompt_ids) + max((aim.place for aim in self.aims), default=0)


@dataclass(frozen=True)
class RowBatch:
    """Rows padded to one length.

    ``rows`` [b] are the original row numbers; ``input_ids``, ``attention_mask``, ``position_ids``
    (None: as the model counts them) and ``counted`` are [b, seq], the last true on counted prompt
    tokens. The p-th completion token that a loss looks at, counted over the whole batch, is
    ``targets[p]``, the ``offsets[p]``-th of its row, and is predicted at batch row
    ``target_rows[p]``, position ``target_positions[p]``; in the row's loss it has
    ``weights[p]``, float64 (None: 1 all). ``measures`` has for each row a loss that is no sum of
    log-losses, or all are None.
    """

    rows: Tensor
    input_ids: Tensor
    attention_mask: Tensor
    position_ids: Tensor | None
    counted: Tensor
    targets: Tensor
    target_rows: Tensor
    target_positions: Tensor
    offsets: Tensor
    weights: Tensor | None
    measures: Sequence[Measure | None]

    def to(self, device: torch.device) -> RowBatch:
        """The batch on ``device``; itself when it is there already."""
        if self.input_ids.device == device:
            return self
        moved: dict[str, Any] = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            moved[field.name] = value.to(device) if isinstance(value, Tensor) else value
        return RowBatch(**moved)

    def model_inputs(self) -> dict[str, Tensor]:
        """Keyword arguments of the model's forward."""
        inputs = {"input_ids": self.input_ids, "attention_mask": self.attention_mask}
        if self.position_ids is not None:
            inputs["position_ids"] = self.position_ids
        return inputs


def pad_rows(
    rows: Sequence[TokenRow], numbers: Sequence[int], *, side: PaddingSide = "right"
) -> RowBatch:
    """``rows``, whose original row numbers are ``numbers``, as one batch padded on ``side``.

    Padded on the right, rows begin where they would alone, and positions are left to the model:
    some families count from another number than 0, or take none.
    """
    inputs = [(row.prompt_ids + row.completion_ids)[: row.length] for row in rows]
    seq = max(map(len, inputs))
    starts = [seq - len(ids) if side == "left" else 0 for ids in inputs]
    attention_mask = _attention_mask(list(map(len, inputs)), seq, side)
    aims = [row.aims for row in rows]
    lengths = _ids(map(len, aims))
    firsts = _ids(start + len(row.prompt_ids) - 1 for start, row in zip(starts, rows, strict=True))
    offsets = _ids(aim.place for of_row in aims for aim in of_row)
    weights = [aim.weight for of_row in aims for aim in of_row]
    target_rows = torch.arange(len(rows)).repeat_interleave(lengths)
    return RowBatch(
        rows=_ids(numbers),
        input_ids=_placed(inputs, starts, seq),
        attention_mask=attention_mask,
        position_ids=(attention_mask.cumsum(1) - 1).clamp_(min=0) if side == "left" else None,
        counted=_placed([list(map(int, row.counted)) for row in rows], starts, seq).bool(),
        targets=_ids(aim.token for of_row in aims for aim in of_row),
        target_rows=target_rows,
        target_positions=firsts[target_rows] + offsets,
        offsets=offsets,
        weights=None
        if all(weight == 1 for weight in weights)
        else torch.tensor(weights, dtype=torch.float64),
        measures=[
            row.objective if isinstance(row.objective, (Answers, Written)) else None for row in rows
        ],
    )


def _attention_mask(lengths: Sequence[int], seq: int, side: PaddingSide) -> Tensor:
    """Zeros on padding at the left; on the right causality alone hides it from every real token.

    Masked there, padding past a sliding window would have nothing left to attend to, which some
    attention kernels answer with NaN.
    """
    if side == "right":
        return torch.ones(len(lengths), seq, dtype=torch.int64)
    return _placed([[1] * length for length in lengths], [seq - n for n in lengths], seq)


def _ids(values: Iterable[int]) -> Tensor:
    return torch.tensor(list(values), dtype=torch.int64)


def _placed(values: Sequence[Sequence[int]], starts: Sequence[int], seq: int) -> Tensor:
    """Each row's values from its start on, zeros elsewhere: [rows, seq] int64."""
    placed = torch.zeros(len(values), seq, dtype=torch.int64)
    for row, (start, items) in enumerate(zip(starts, values, strict=True)):
        placed[row, start : start + len(items)] = torch.tensor(items)
    return placed
