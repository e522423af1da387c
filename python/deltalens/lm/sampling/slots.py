"""Keys and values of many rows in fixed buffers, the newest token of each in one column."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer


class States(NamedTuple):
    """One layer's keys and values [items, heads, width, head_dim], right-aligned.

    Prefix p's are those of item ``item[p]``, which several prefixes may share.
    """

    keys: Tensor
    values: Tensor
    item: Tensor


class SlotCache:
    """A cache of ``slots`` rows, ``capacity`` columns each, for a model to decode with.

    Rows are right-aligned at column ``end``: a row of n tokens has them in the n columns before it,
    so rows of different lengths share a step, and what lies further left is masked. A step writes
    one column in place. At the right edge all rows are moved to the left edge.
    """

    def __init__(self, like: Sequence[States | None], slots: int, capacity: int, end: int) -> None:
        self.end, self._capacity = end, capacity
        self._layers = [_SlotLayer(states, slots, capacity) for states in like]
        self.cache = DynamicCache()
        self.cache.layers = [*self._layers]

    def admit(self, slots: Tensor, like: Sequence[States | None], prefixes: Tensor) -> None:
        """Copy the prefixes' states to ``slots`` [rows]."""
        for layer, states in zip(self._layers, like, strict=True):
            if states is not None:
                layer.admit(slots, states, prefixes, self.end)

    def move(self, sources: Tensor, targets: Tensor, longest: int) -> None:
        """Copy rows of at most ``longest`` tokens from the slots ``sources`` to ``targets``."""
        columns = slice(self.end - longest, self.end)
        for buffer in self._buffers():
            moved = buffer[sources.to(buffer.device), :, columns]
            buffer[targets.to(buffer.device), :, columns] = moved

    def open(self, rows: int, longest: int, waiting: int) -> None:
        """Make ready for a step of the first ``rows`` slots, of at most ``longest`` tokens each.

        ``waiting``: the longest prefix that is still to come.
        """
        if self.end == self._capacity:
            self._shift(rows, longest, max(longest, waiting))
        for layer in self._layers:
            layer.rows, layer.start, layer.end = rows, self.end - longest, self.end

    def close(self) -> None:
        """Count the column that the step has written."""
        self.end += 1

    def _shift(self, rows: int, longest: int, end: int) -> None:
        for buffer in self._buffers():
            kept = buffer[:rows, :, self.end - longest : self.end].clone()
            buffer[:rows, :, end - longest : end] = kept
        self.end = end

    def _buffers(self) -> list[Tensor]:
        return [
            buffer for layer in self._layers if layer.is_initialized for buffer in layer.buffers
        ]


class _SlotLayer(DynamicLayer):
    """One layer's buffers [slots, heads, capacity, head_dim], as transformers asks for them.

    Sliding-window layers keep all keys too and leave it to their mask to hide the older ones.
    """

    rows = start = end = 0

    def __init__(self, like: States | None, slots: int, capacity: int) -> None:
        super().__init__()
        if like is None:  # a layer without keys and values of its own
            return
        # Zeros, since a masked column still takes part with weight 0, and 0 · NaN is NaN.
        self.buffers = [
            made.new_zeros(slots, made.shape[1], capacity, made.shape[3])
            for made in (like.keys, like.values)
        ]
        self.dtype, self.device = like.keys.dtype, like.keys.device
        self.is_initialized = True

    def admit(self, slots: Tensor, states: States, prefixes: Tensor, end: int) -> None:
        items = states.item[prefixes].to(self.device)
        width = states.keys.shape[2]
        for buffer, made in zip(self.buffers, (states.keys, states.values), strict=True):
            buffer[slots.to(self.device), :, end - width : end] = made[items]

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        for buffer, new in zip(self.buffers, (key_states, value_states), strict=True):
            buffer[: self.rows, :, self.end : self.end + 1] = new
        keys, values = (
            buffer[: self.rows, :, self.start : self.end + 1] for buffer in self.buffers
        )
        return keys, values

    def get_seq_length(self) -> int:
        return self.end - self.start

    def get_mask_sizes(self, query: Any) -> tuple[int, int]:
        """(columns, offset); transformers 4 passes positions where 5 passes their number."""
        count = len(query) if isinstance(query, torch.Tensor) else int(query)
        return self.end - self.start + count, 0
