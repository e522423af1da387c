"""Editing a site's tensor while a model runs: a table of edits, one of them for each batch row."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

import torch
from torch import Tensor

from deltalens.errors import InputError
from deltalens.lm.points.replacing import replacing
from deltalens.lm.sites import Site


class Edits(Protocol):
    """Edits of a site's tensor, numbered from 0.

    What becomes of a position depends on its own activation and on the edit's number, on nothing
    else: so a prompt may be read in one pass or in several, and once for all rows that share both.
    """

    def __len__(self) -> int:
        """How many there are."""

    def edited(self, hidden: Tensor, numbers: Tensor) -> Tensor:
        """``hidden`` [rows, seq, d_model] with edit ``numbers[r]`` made in row r.

        numbers: int64 [rows] on the CPU. Same shape, dtype and device.
        """


class Placed:
    """Tensors, kept once more where they are used."""

    def __init__(self, *tensors: Tensor) -> None:
        self._tensors = tensors
        self._copies: dict[tuple[torch.device, torch.dtype], tuple[Tensor, ...]] = {}

    def at(self, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, ...]:
        """On ``device``, those of floating point in ``dtype``."""
        place = device, dtype
        if place not in self._copies:
            self._copies[place] = tuple(
                each.to(device, dtype if each.is_floating_point() else None)
                for each in self._tensors
            )
        return self._copies[place]


class Additions:
    """Edit r adds ``added[r]``, [edits, d_model], at every position."""

    def __init__(self, added: Tensor) -> None:
        self.added = added
        self._placed = Placed(added)

    def __len__(self) -> int:
        return len(self.added)

    def edited(self, hidden: Tensor, numbers: Tensor) -> Tensor:
        """As :meth:`Edits.edited`."""
        (added,) = self._placed.at(hidden.device, hidden.dtype)
        return hidden + added[numbers.to(hidden.device)].unsqueeze(1)


def editing(
    site: Site, edits: Edits, numbers: Tensor, start: int | Callable[[Tensor], int] = 0
) -> AbstractContextManager[None]:
    """Within the context edit ``numbers[r]`` is made at ``site`` in batch row r, from position
    ``start`` on.

    Where that differs between forward passes, ``start`` says it of the site's output. Raises
    :class:`InputError` in a forward pass of another number of rows.
    """

    def replace(hidden: Tensor) -> Tensor:
        if len(numbers) != len(hidden):
            raise InputError(f"edits are for {len(numbers)} rows, the batch has {len(hidden)}")
        first = start if isinstance(start, int) else start(hidden)
        return edited_from(hidden, first, lambda part: edits.edited(part, numbers))

    return replacing(site, replace)


def edited_from(hidden: Tensor, start: int, edit: Callable[[Tensor], Tensor]) -> Tensor:
    """``hidden`` [rows, seq, d_model] with ``edit`` made from position ``start`` on."""
    if start >= hidden.shape[1]:
        return hidden
    if start == 0:
        return edit(hidden)
    return torch.cat([hidden[:, :start], edit(hidden[:, start:])], dim=1)
