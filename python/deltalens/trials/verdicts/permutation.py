"""Whether a set's mean is larger than that of sets drawn at random from the same latents."""

from __future__ import annotations

import math
from itertools import combinations

import torch
from torch import Tensor

RELABELINGS = 9_999
_CHUNK = 1_000
_ROUNDING = 1e-9  # rates are fractions of counts: what is nearer is equal


def permutation_p(suspects: Tensor, controls: Tensor, *, seed: int = 0) -> float:
    """One-sided p-value of mean(suspects) being this large by the luck of the draw.

    suspects: fp64 [m], controls: [n]. Under the null hypothesis all m + n values are
    exchangeable; every choice of m is as likely as the one at hand. All choices are counted where
    they are no more than :data:`RELABELINGS` + 1, otherwise so many random ones besides the one at
    hand: (1 + as large) / (1 + drawn), which is never too small (Phipson and Smyth 2010).
    """
    pooled = torch.cat([suspects, controls])
    least = float(suspects.sum()) - _ROUNDING
    if math.comb(len(pooled), len(suspects)) <= RELABELINGS + 1:
        return _exact(pooled, len(suspects), least)
    generator = torch.Generator().manual_seed(seed)
    as_large = 0
    for start in range(0, RELABELINGS, _CHUNK):
        rows = min(_CHUNK, RELABELINGS - start)
        keys = torch.rand(rows, len(pooled), generator=generator, dtype=torch.float64)
        chosen = keys.topk(len(suspects), dim=1).indices
        as_large += int((pooled[chosen].sum(1) >= least).sum())
    return (1 + as_large) / (1 + RELABELINGS)


def _exact(pooled: Tensor, size: int, least: float) -> float:
    chosen = torch.tensor(list(combinations(range(len(pooled)), size)))
    return float((pooled[chosen].sum(1) >= least).double().mean())
