"""An intervention made ready for a model: conditions in, edits of its site out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from deltalens.engine.decoder import Decoder
from deltalens.errors import InputError
from deltalens.lm import Site
from deltalens.lm.points.edits import Additions, Edits
from deltalens.lm.sampling.engine import Intervene, Steer
from deltalens.lm.sinks import SINKS
from deltalens.lm.steering import SteerTokens
from deltalens.pairs.identity import vector_fingerprint
from deltalens.study.baseline import Baseline, check_baseline
from deltalens.study.latents import latent_rows, unit
from deltalens.trials.conditions import Condition, directions
from deltalens.trials.interventions.chosen import ChosenLatents, Gates
from deltalens.trials.interventions.editing import Amounts, Projections, Where, Writes
from deltalens.trials.interventions.intervention import Intervention
from deltalens.trials.together.latents import members

_DEPENDENT = 1e-3  # of the largest singular value: what bfloat16 makes of rows in one plane


@dataclass(frozen=True)
class Treatment:
    """``intervention`` at ``site`` of a model whose median norm there is ``norm``.

    source: the SAE, or whatever ``decoder`` is of. baseline: for ablation. references: r of every
    latent, for clamping.
    """

    intervention: Intervention
    source: Any
    decoder: Decoder
    site: Site
    norm: float
    baseline: Baseline | None = None
    references: Mapping[int, float] = field(default_factory=dict)

    def check(self) -> None:
        """Raise :class:`InputError` for what is missing or does not fit."""
        if self.intervention.kind == "ablate":
            check_baseline(self._baseline, self.site)
        if self.intervention.encodes:
            _ = self._gates
        if self.intervention.of == "latent":
            self._baseline.latent_mean_of(self.source)

    @property
    def ablated_to(self) -> str | None:
        """Hash of what is put in a latent's place; None where nothing is ablated."""
        if self.intervention.kind != "ablate":
            return None
        latent = self.intervention.of == "latent"
        baseline = self._baseline
        return vector_fingerprint(baseline.latent_mean_of(self.source) if latent else baseline.mean)

    def steer(self, conditions: Sequence[Condition], tokens: SteerTokens) -> Steer | Intervene:
        """What an engine is asked for, a row of each of ``conditions``."""
        unique = list(dict.fromkeys(conditions))
        place = {condition: number for number, condition in enumerate(unique)}
        numbers = [place[condition] for condition in conditions]
        edits = self.edits(unique)
        if isinstance(edits, Additions):
            return Steer(self.site, edits.added[numbers], tokens)
        return Intervene(self.site, edits, numbers, tokens)

    def edits(self, conditions: Sequence[Condition]) -> Edits:
        """Edit r is that of ``conditions[r]``; of a condition without latents, none."""
        kind, active = self.intervention.kind, self.intervention.only_active
        nothing = all(condition.latent is None for condition in conditions)
        if nothing or (kind == "add" and not active):
            return Additions(directions(self.decoder, conditions, self.norm))
        table = _Table.of(conditions)
        if kind == "ablate" and self.intervention.of == "direction":
            return self._projections(table)
        return self._writes(table)

    def _projections(self, table: _Table) -> Projections:
        active = self.intervention.only_active
        if active and table.which.shape[1] > 1:
            raise InputError(
                "several directions at once are ablated at all tokens, or latents themselves of a "
                "run with score='latent'; leave only_active out"
            )
        bases = torch.zeros(*table.which.shape, self.decoder.d_model, dtype=torch.float64)
        units = unit(latent_rows(self.decoder, table.latents))
        for row, (which, there) in enumerate(zip(table.which, table.there, strict=True)):
            found = _orthonormal(units[which[there]])
            bases[row, : len(found)] = found
        where = Where(self._limit)
        if active:
            where = self._where(table)
        shares = table.strengths.abs().amax(1)
        return Projections(bases, shares, self._baseline.mean, where)

    def _writes(self, table: _Table) -> Writes:
        rows = latent_rows(self.decoder, table.latents)
        only_active = self.intervention.only_active
        if self.intervention.kind == "add":
            units = unit(rows)
            lengths = torch.stack([self._length(units, *each) for each in table.edits()])
            offsets = table.strengths / lengths[:, None]
            amounts = Amounts(torch.zeros_like(offsets), offsets, scaled=False)
            return Writes(self.norm * units, amounts, self._where(table), only_active)
        outputs = self._gates.gate.outputs(torch.tensor(table.latents), torch.device("cpu"))
        amounts = Amounts(*self._amounts(table), scaled=True)
        return Writes(rows * outputs[..., None], amounts, self._where(table), only_active)

    def _amounts(self, table: _Table) -> tuple[Tensor, Tensor]:
        """Slopes and offsets of ablated, clamped and multiplied latents."""
        none = torch.zeros_like(table.strengths)
        if self.intervention.kind == "multiply":
            return table.strengths, none
        if self.intervention.kind == "clamp":
            missing = [latent for latent in table.latents if latent not in self.references]
            if missing:
                raise InputError(f"latent {missing[0]} has no value to be clamped to")
            values = torch.tensor([self.references[latent] for latent in table.latents]).double()
            return -table.there.double(), table.strengths * values[table.which]
        means = self._baseline.latent_mean_of(self.source)[torch.tensor(table.latents)]
        shares = table.strengths.abs()
        return -shares, shares * means[table.which]

    @staticmethod
    def _length(units: Tensor, which: Tensor, signs: Tensor) -> Tensor:
        """Of the sum of an edit's unit directions, 1 where that is nothing."""
        length = (signs[:, None] * units[which]).sum(0).norm()
        return length if length > 0 else torch.ones_like(length)

    def _where(self, table: _Table) -> Where:
        chosen = ChosenLatents(self._gates, torch.tensor(table.latents))
        return Where(self._limit, table.which, chosen)

    @cached_property
    def _gates(self) -> Gates:
        return Gates(self.source, self.decoder, self.site)

    @property
    def _limit(self) -> float:
        return SINKS.limit(self.norm)

    @property
    def _baseline(self) -> Baseline:
        if self.baseline is None:
            raise InputError("ablation puts a baseline in the latent's place; give one")
        return self.baseline


@dataclass(frozen=True)
class _Table:
    """Conditions as rows of as many columns as the largest has latents.

    latents: the distinct ones, at least one. which: int64 [conditions, m], places among them;
    there: bool, false where a condition has fewer; strengths: fp64, signed latent by latent, 0
    where there is none.
    """

    latents: list[int]
    which: Tensor
    there: Tensor
    strengths: Tensor

    @classmethod
    def of(cls, conditions: Sequence[Condition]) -> _Table:
        rows = [members(condition.latent) for condition in conditions]
        latents = list(dict.fromkeys(latent for row in rows for latent, _ in row)) or [0]
        place = {latent: number for number, latent in enumerate(latents)}
        size = len(rows), max(1, *map(len, rows)) if rows else 1
        which = torch.zeros(size, dtype=torch.int64)
        strengths = torch.zeros(size, dtype=torch.float64)
        there = torch.zeros(size, dtype=torch.bool)
        for number, (row, condition) in enumerate(zip(rows, conditions, strict=True)):
            for column, (latent, sign) in enumerate(row):
                which[number, column] = place[latent]
                strengths[number, column] = sign * condition.strength
                there[number, column] = True
        return cls(latents, which, there, strengths)

    def edits(self) -> list[tuple[Tensor, Tensor]]:
        """Each condition's places and signs."""
        return [
            (which[there], strengths[there].sign())
            for which, there, strengths in zip(self.which, self.there, self.strengths, strict=True)
        ]


def _orthonormal(units: Tensor) -> Tensor:
    """Orthonormal rows that span ``units``, fp64 [m, d_model]; rows that but for rounding depend on
    one another span no more than they would without it."""
    if len(units) < 2:
        return units
    _, sizes, rows = torch.linalg.svd(units, full_matrices=False)
    return rows[sizes > _DEPENDENT * sizes[0]]
