"""Which tokens each step of a kernel reads, when no block may cross a segment's end."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor


@dataclass(frozen=True)
class TokenBlocks:
    """Blocks of at most ``size`` consecutive tokens, dealt out to splits as whole segments."""

    # int32 [blocks + 1, 3]: first token, one past the last, whether a segment ends; then zeros,
    # because kernels read one block ahead.
    table: Tensor
    bounds: Tensor  # int32 [splits + 1]: blocks of split s are bounds[s] … bounds[s + 1] - 1
    segments: Tensor  # fp32 [splits]: segments that end in each split

    def to(self, device: torch.device) -> TokenBlocks:
        """The same on another device."""
        return TokenBlocks(self.table.to(device), self.bounds.to(device), self.segments.to(device))


def token_blocks(tokens: int, segments: Tensor | None, size: int, splits: int) -> TokenBlocks:
    """Cut ``tokens`` into blocks, at the offsets ``segments`` [n + 1] too when they are given."""
    offsets = [0, tokens] if segments is None else segments.tolist()
    rows = [
        (start, min(start + size, stop), int(start + size >= stop))
        for first, stop in pairwise(offsets)
        for start in range(first, stop, size)
    ]
    cuts = _cuts(rows, splits, whole=segments is not None)
    ends = [sum(row[2] for row in rows[a:b]) for a, b in pairwise(cuts)]
    return TokenBlocks(
        torch.tensor([*rows, (0, 0, 0)], dtype=torch.int32),
        torch.tensor(cuts, dtype=torch.int32),
        torch.tensor(ends, dtype=torch.float32),
    )


def _cuts(rows: list[tuple[int, int, int]], splits: int, *, whole: bool) -> list[int]:
    """Even cuts of the blocks, moved up to the end of a segment when segments stay whole."""
    cuts = [0]
    for split in range(1, splits):
        cut = max(cuts[-1], len(rows) * split // splits)
        while whole and 0 < cut < len(rows) and not rows[cut - 1][2]:
            cut += 1
        cuts.append(cut)
    return [*cuts, len(rows)]


def check_segments(segments: Tensor, tokens: int) -> None:
    """``segments`` are offsets 0 = o_0 < o_1 < … < o_n = tokens."""
    if segments.ndim != 1 or segments.numel() < 2 or segments.is_floating_point():
        raise ValueError(
            f"segments must be integer offsets [n + 1], got {segments.dtype} "
            f"{tuple(segments.shape)}"
        )
    offsets = segments.tolist()
    ascending = all(a < b for a, b in pairwise(offsets))
    if offsets[0] != 0 or offsets[-1] != tokens or not ascending:
        raise ValueError(
            f"segments must rise from 0 to the {tokens} tokens, got {offsets[:4]} … {offsets[-1]}"
        )
