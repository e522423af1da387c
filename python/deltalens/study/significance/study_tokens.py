"""All pairs' rows in one piece, for a pass over the decoder that needs pairs apart."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from deltalens.engine.token_rows import TokenRows
from deltalens.lm import PairRows
from deltalens.storage.mapped import mapped_tensor


def study_tokens(
    rows: Iterable[PairRows], mean: Tensor, work: Path, device: torch.device
) -> tuple[TokenRows, list[int]]:
    """Rows of all pairs and offsets into them; a token weighs 1 / tokens of its pair.

    They are laid out in files under ``work`` that are mapped to memory, γ = g(C) − g(C′) rounded
    to fp32 once; a ``device`` other than the CPU gets a copy. ``rows`` is read twice.
    """
    sizes = [(len(row.acts), row.tokens) for row in rows]
    lengths = torch.tensor([length for length, _ in sizes])
    tokens = torch.tensor([each for _, each in sizes], dtype=torch.float64)
    offsets = [0, *lengths.cumsum(0).tolist()]
    shape = (offsets[-1], mean.shape[0])
    acts = mapped_tensor(work / "acts.bin", shape, torch.float32)
    grads = mapped_tensor(work / "differences.bin", shape, torch.float32)
    for start, row in zip(offsets, rows, strict=False):
        part = slice(start, start + len(row.acts))
        acts[part] = row.moved
        grads[part] = row.grad_positive.double() - row.grad_negative.double()
    weights = tokens.reciprocal().repeat_interleave(lengths)
    source = TokenRows(
        acts.to(device), grads.to(device), mean.to(device, torch.float64), weights.to(device)
    )
    return source, offsets
