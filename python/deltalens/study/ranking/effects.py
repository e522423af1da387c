"""From stored rows to numbers: the study's moment, and every pair's share of chosen latents."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from deltalens.engine import CrossMoment, TopLatents
from deltalens.engine.resampling.tile_sums import TileSums
from deltalens.lm import PairRows
from deltalens.study.directions.means import DirectionSums
from deltalens.study.significance import Significance
from deltalens.study.tokens.effects import LATENTS_KEPT, tokens_kept


@dataclass(frozen=True)
class PairEffects:
    """δ_i(C) and δ_i(C′), push and presence of every pair, fp64 [pairs, k] each.

    ``losses`` [pairs, 2] are the completions' log-losses, ``tokens`` the counted tokens in all.
    ``per_token``: of the first pairs, δ_{i,t}(C) − δ_{i,t}(C′) float32 [tokens, k], and ``norms``
    ‖a_t‖ float32 [tokens]. ``directions``: sums of the pairs' rows themselves.
    """

    positive: Tensor
    negative: Tensor
    push: Tensor
    presence: Tensor
    losses: Tensor
    tokens: int
    per_token: list[Tensor]
    norms: list[Tensor]
    directions: DirectionSums

    @property
    def difference(self) -> Tensor:
        """Δ_i of every pair."""
        return self.positive - self.negative


class Found(NamedTuple):
    """The top latents of a study; every latent's score when asked. ``tiles``: all latents' Δ of
    every pair, of which nothing is read before the first is asked for."""

    top: TopLatents
    effects: PairEffects
    all_scores: Tensor | None
    tiles: Iterator[TileSums]


class Ranked(NamedTuple):
    """The top latents of a study with what is known of them; every latent's score when asked."""

    top: TopLatents
    effects: PairEffects
    all_scores: Tensor | None
    significance: Significance


def stderr_over_pairs(values: Tensor) -> Tensor:
    """Standard error of the mean over pairs, fp64 [k], of values [pairs, k]; NaN for one pair."""
    pairs, k = values.shape
    if pairs == 1:
        return torch.full((k,), torch.nan, dtype=torch.float64)
    return values.std(dim=0, correction=1) / pairs**0.5


def study_moment(
    rows: Iterable[PairRows], pairs: int, mean: Tensor, device: torch.device
) -> CrossMoment:
    """S of the whole study: γ = g(C) − g(C′), every row weighing 1 / (pairs · T of its pair).

    γ is taken in fp64, where the difference of two float32 gradients is exact to rounding.
    """
    moment = CrossMoment(mean.shape[0], device)
    for row in rows:
        add_pair(moment, row, pairs, mean)
    return moment


def add_pair(moment: CrossMoment, row: PairRows, pairs: int, mean: Tensor) -> None:
    """Add to the moment of a study of so many ``pairs`` the rows of one of them.

    Rows of one completion alone weigh half, with twice the gradient: their part of S and of push
    is what it is, while presence is the mean of both completions'.
    """
    shares = row.shares
    difference = row.grad_positive.double() - row.grad_negative.double()
    moment.add(
        row.moved,
        difference / shares[:, None],
        baseline=mean,
        weights=shares / (pairs * row.tokens),
    )


def pair_effects(rows: Iterable[PairRows], directions: Tensor, mean: Tensor) -> PairEffects:
    """−mean_t (g_t·d_i)((a_t − ā)·d_i) of both completions, for directions fp64 [k, d_model], and
    the means over tokens of −γ_t·d_i (push) and of (a_t − ā)·d_i (presence). Means are over the
    tokens that a completion follows, T of the pair."""
    sums = EffectSums()
    for row in rows:
        sums.add(
            row,
            row.grad_positive.double() @ directions.T,
            row.grad_negative.double() @ directions.T,
            (row.moved - mean) @ directions.T,
        )
    return sums.result()


class EffectSums:
    """Collects :class:`PairEffects`, one pair after the other."""

    def __init__(self) -> None:
        self._positive: list[Tensor] = []
        self._negative: list[Tensor] = []
        self._push: list[Tensor] = []
        self._presence: list[Tensor] = []
        self._losses: list[list[float]] = []
        self._per_token: list[Tensor] = []
        self._norms: list[Tensor] = []
        self._tokens = 0
        self._directions = DirectionSums()

    def add(self, row: PairRows, up: Tensor, down: Tensor, present: Tensor) -> None:
        """A pair's products of both gradients with what a unit of the latent writes, and how far
        the latent is there; fp64 [tokens, k]."""
        positive, negative = up * present, down * present
        self._positive.append(-row.total(positive))
        self._negative.append(-row.total(negative))
        self._push.append(row.total(down - up))
        self._presence.append(row.mean(present))
        self._losses.append([row.loss_positive, row.loss_negative])
        self._directions.add(row)
        self._tokens += len(present)
        if self._tokens <= tokens_kept(present.shape[1]) or not self._per_token:
            effects = negative[:, :LATENTS_KEPT] - positive[:, :LATENTS_KEPT]
            self._per_token.append(effects.float())
            self._norms.append(row.acts.norm(dim=1))

    def result(self) -> PairEffects:
        """What was collected."""
        return PairEffects(
            torch.stack(self._positive),
            torch.stack(self._negative),
            torch.stack(self._push),
            torch.stack(self._presence),
            torch.tensor(self._losses, dtype=torch.float64),
            self._tokens,
            self._per_token,
            self._norms,
            self._directions,
        )
