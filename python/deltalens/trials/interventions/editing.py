"""Edits of directions and of what latents write, see :class:`.intervention.Intervention`."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from deltalens.lm.points.edits import Placed
from deltalens.trials.interventions.chosen import ChosenLatents


@dataclass(frozen=True)
class Where:
    """At which tokens: those of at most the norm ``limit``, and with ``active`` only where the
    latent is. which: int64 [edits, m], the latents of each edit by their place in ``active``."""

    limit: float
    which: Tensor | None = None
    active: ChosenLatents | None = None


class Projections:
    """Edit r takes ``shares[r]`` of the projection of a − ``mean`` on ``bases[r]`` away.

    bases: fp64 [edits, m, d_model], orthonormal rows or zeros; shares: fp64 [edits].
    """

    def __init__(self, bases: Tensor, shares: Tensor, mean: Tensor, where: Where) -> None:
        self._placed = Placed(bases, shares, mean)
        self._where, self._edits = where, len(bases)
        self._which = None if where.which is None else Placed(where.which)

    def __len__(self) -> int:
        return self._edits

    def edited(self, hidden: Tensor, numbers: Tensor) -> Tensor:
        """As :meth:`~deltalens.lm.points.edits.Edits.edited`."""
        wide = _wide(hidden)
        numbers = numbers.to(hidden.device)
        bases, shares, mean = self._placed.at(wide.device, wide.dtype)
        rows = bases[numbers]
        amounts = torch.einsum("rsd,rmd->rsm", wide - mean, rows) * shares[numbers][:, None, None]
        amounts = amounts * _small(wide, self._where.limit)
        if self._where.active is not None and self._which is not None:
            (which,) = self._which.at(wide.device, wide.dtype)
            z, _ = self._where.active.activations(wide, which[numbers])
            amounts = amounts * (z > 0)
        return (wide - torch.einsum("rsm,rmd->rsd", amounts, rows)).to(hidden.dtype)


@dataclass(frozen=True)
class Amounts:
    """How much of its row each latent of an edit writes more: ``slopes`` · z + ``offsets``, times f
    where ``scaled``. fp64 [edits, m]; both are 0 where an edit has fewer latents."""

    slopes: Tensor
    offsets: Tensor
    scaled: bool


class Writes:
    """Edit r adds the rows of its latents, in amounts that depend on their activations z.

    rows: fp64 [n, d_model] of the latents that ``where.active`` tells of; where.which says which of
    them belong to each edit. only_active: nothing where z is 0.
    """

    def __init__(self, rows: Tensor, amounts: Amounts, where: Where, only_active: bool) -> None:
        assert where.which is not None
        assert where.active is not None
        self._active, self._limit, self._only_active = where.active, where.limit, only_active
        self._scaled = amounts.scaled
        self._placed = Placed(rows)
        self._numbers = Placed(where.which, amounts.slopes, amounts.offsets)
        self._edits = len(where.which)

    def __len__(self) -> int:
        return self._edits

    def edited(self, hidden: Tensor, numbers: Tensor) -> Tensor:
        """As :meth:`~deltalens.lm.points.edits.Edits.edited`."""
        wide = _wide(hidden)
        numbers = numbers.to(hidden.device)
        which, slopes, offsets = (
            each[numbers] for each in self._numbers.at(wide.device, torch.float64)
        )
        z, factors = self._active.activations(wide, which)
        amounts = slopes[:, None] * z + offsets[:, None]
        if self._scaled:
            amounts = amounts * factors
        if self._only_active:
            amounts = amounts * (z > 0)
        amounts = (amounts * _small(wide, self._limit)).to(wide.dtype)
        (rows,) = self._placed.at(wide.device, wide.dtype)
        return (wide + torch.einsum("rsm,rmd->rsd", amounts, rows[which])).to(hidden.dtype)


def _wide(hidden: Tensor) -> Tensor:
    return hidden.to(torch.promote_types(hidden.dtype, torch.float32))


def _small(wide: Tensor, limit: float) -> Tensor:
    """Which tokens are no attention sinks, bool [rows, seq, 1]."""
    return wide.norm(dim=-1, keepdim=True) <= limit
