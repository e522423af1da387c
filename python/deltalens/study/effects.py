"""From stored rows to numbers: the study's moment, and every pair's share of chosen latents."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from deltalens.engine import CrossMoment
from deltalens.lm import PairRows


@dataclass(frozen=True)
class PairEffects:
    """δ_i(C) and δ_i(C′) of every pair, fp64 [pairs, k] each.

    ``losses`` [pairs, 2] are the completions' log-losses, ``tokens`` the counted tokens in all.
    """

    positive: Tensor
    negative: Tensor
    losses: Tensor
    tokens: int

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
    positive, negative, losses = [], [], []
    tokens = 0
    for row in rows:
        present = (row.acts.double() - mean) @ directions.T  # [tokens, k]
        positive.append(-((row.grad_positive.double() @ directions.T) * present).mean(0))
        negative.append(-((row.grad_negative.double() @ directions.T) * present).mean(0))
        losses.append([row.loss_positive, row.loss_negative])
        tokens += row.acts.shape[0]
    return PairEffects(
        torch.stack(positive),
        torch.stack(negative),
        torch.tensor(losses, dtype=torch.float64),
        tokens,
    )
