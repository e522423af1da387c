"""From stored rows to numbers: the study's moment, and every pair's share of chosen latents."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from deltalens.engine import CrossMoment
from deltalens.lm import PairRows
from deltalens.study.directions.means import DirectionSums
from deltalens.study.tokens.effects import TOKENS_KEPT


@dataclass(frozen=True)
class PairEffects:
    """δ_i(C) and δ_i(C′) of every pair, fp64 [pairs, k] each.

    ``losses`` [pairs, 2] are the completions' log-losses, ``tokens`` the counted tokens in all.
    ``per_token``: of the first pairs, δ_{i,t}(C) − δ_{i,t}(C′) float32 [tokens, k], and ``norms``
    ‖a_t‖ float32 [tokens]. ``directions``: sums of the pairs' rows themselves.
    """

    positive: Tensor
    negative: Tensor
    losses: Tensor
    tokens: int
    per_token: list[Tensor]
    norms: list[Tensor]
    directions: DirectionSums

    @property
    def difference(self) -> Tensor:
        """Δ_i of every pair."""
        return self.positive - self.negative

    @property
    def stderr(self) -> Tensor:
        """Standard error over pairs of the mean of Δ_i, fp64 [k]; NaN for a single pair."""
        pairs, k = self.positive.shape
        if pairs == 1:
            return torch.full((k,), torch.nan, dtype=torch.float64)
        return self.difference.std(dim=0, correction=1) / pairs**0.5


def study_moment(
    rows: Iterable[PairRows], pairs: int, mean: Tensor, device: torch.device
) -> CrossMoment:
    """S of the whole study: γ = g(C) − g(C′), every row weighing 1 / (pairs · tokens of its pair).

    γ is taken in fp64, where the difference of two float32 gradients is exact to rounding.
    """
    moment = CrossMoment(mean.shape[0], device)
    for row in rows:
        tokens = row.acts.shape[0]
        weights = torch.full((tokens,), 1.0 / (pairs * tokens), dtype=torch.float64)
        difference = row.grad_positive.double() - row.grad_negative.double()
        moment.add(row.acts.double(), difference, baseline=mean, weights=weights)
    return moment


def pair_effects(rows: Iterable[PairRows], directions: Tensor, mean: Tensor) -> PairEffects:
    """−mean_t (g_t·d_i)((a_t − ā)·d_i) of both completions, for directions fp64 [k, d_model]."""
    sums = EffectSums()
    for row in rows:
        present = (row.acts.double() - mean) @ directions.T  # [tokens, k]
        sums.add(
            row,
            (row.grad_positive.double() @ directions.T) * present,
            (row.grad_negative.double() @ directions.T) * present,
        )
    return sums.result()


class EffectSums:
    """Collects :class:`PairEffects`, one pair after the other."""

    def __init__(self) -> None:
        self._positive: list[Tensor] = []
        self._negative: list[Tensor] = []
        self._losses: list[list[float]] = []
        self._per_token: list[Tensor] = []
        self._norms: list[Tensor] = []
        self._tokens = 0
        self._directions = DirectionSums()

    def add(self, row: PairRows, positive: Tensor, negative: Tensor) -> None:
        """A pair's −δ_{i,t} of both completions, fp64 [tokens, k]."""
        self._positive.append(-positive.mean(0))
        self._negative.append(-negative.mean(0))
        self._losses.append([row.loss_positive, row.loss_negative])
        self._directions.add(row)
        self._tokens += len(positive)
        if self._tokens <= TOKENS_KEPT or not self._per_token:
            self._per_token.append((negative - positive).float())
            self._norms.append(row.acts.norm(dim=1))

    def result(self) -> PairEffects:
        """What was collected."""
        return PairEffects(
            torch.stack(self._positive),
            torch.stack(self._negative),
            torch.tensor(self._losses, dtype=torch.float64),
            self._tokens,
            self._per_token,
            self._norms,
            self._directions,
        )
