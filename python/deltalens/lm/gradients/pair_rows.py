"""One pair's activations and gradients, and how sums over its tokens weigh them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from deltalens.lm.pairs import Pair
from deltalens.lm.text.encoded import counted_tokens
from deltalens.storage.in_order import Arrival


@dataclass(frozen=True)
class PairRows:
    """One pair's rows: float32 tensors [rows, d_model] on the CPU, a row for each counted token.

    ``acts`` are the site's activations; ``grad_positive`` and ``grad_negative`` the gradients of
    the completions' log-losses ``loss_positive`` and ``loss_negative``. Tokens that both
    completions follow have one row. The last rows are those of tokens that only the positive one
    follows, and after them only the negative one: ``own`` says how many; the other completion's
    gradient is 0 there. ``counterpart``: of aligned prompts, the other's activations [rows,
    d_model].
    """

    acts: Tensor
    grad_positive: Tensor
    grad_negative: Tensor
    pair: Pair
    loss_positive: float
    loss_negative: float
    own: tuple[int, int] = (0, 0)
    counterpart: Tensor | None = None

    @property
    def tokens(self) -> float:
        """T: how many counted tokens a completion follows, the mean of the two."""
        return counted_tokens(len(self.acts), self.own)

    @property
    def shares(self) -> Tensor:
        """1 for tokens that both completions follow, ½ for those of one alone; fp64 [rows], which
        add up to ``tokens``."""
        shares = torch.ones(len(self.acts), dtype=torch.float64)
        shares[len(shares) - sum(self.own) :] = 0.5
        return shares

    @property
    def moved(self) -> Tensor:
        """What ablation moves to the baseline: the activations, or how far they are from their
        counterparts, for which the baseline is 0; fp64 [rows, d_model]."""
        acts = self.acts.double()
        return acts if self.counterpart is None else acts - self.counterpart.double()

    def total(self, values: Tensor) -> Tensor:
        """Σ values / T of values [rows, …] in which a completion enters that follows the row."""
        return values.sum(0) / self.tokens

    def mean(self, values: Tensor) -> Tensor:
        """The mean over both completions of the mean over their tokens of values [rows, k]."""
        return self.total(values * self.shares[:, None])


class Captured(NamedTuple):
    """What comes with a pair's tensors: the pair, its completions' log-losses, how many rows are
    of one completion alone at each site, and whether counterparts come too."""

    pair: Pair
    losses: tuple[float, float]
    own: tuple[tuple[int, int], ...]
    aligned: bool = False


def site_tensors(
    positive: Tensor,
    grads_positive: Tensor,
    negative: Tensor,
    grads_negative: Tensor,
    own: tuple[int, int],
) -> tuple[Tensor, Tensor, Tensor]:
    """Acts and both completions' grads of all rows at a site, from the acts of the positive
    completion's tokens, those of the negative one's own, and each one's grads at its tokens."""
    if not any(own):
        return positive, grads_positive, grads_negative
    shared = len(positive) - own[0]
    blank = positive.new_zeros(max(own), positive.shape[1])
    up = torch.cat([grads_positive, blank[: own[1]]])
    down = torch.cat([grads_negative[:shared], blank[: own[0]], grads_negative[shared:]])
    return torch.cat([positive, negative]), up, down


def pair_rows(arrival: Arrival[Captured]) -> list[PairRows]:
    """Of acts, both completions' grads and counterparts, if any, one site after the other."""
    about = arrival.note
    step = 4 if about.aligned else 3
    found = []
    for site, own in enumerate(about.own):
        acts, up, down, *there = arrival.tensors[step * site : step * (site + 1)]
        rows = PairRows(acts, up, down, about.pair, *about.losses, own, *there)
        found.append(rows)
    return found
