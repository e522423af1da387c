"""Sign flips of pairs: swapping positive and negative changes the sign of a pair's Δ."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

EXACT = 1024  # sign patterns that are enumerated whatever number of flips is asked for
SEED = 0
_ROUNDING = 1e-6  # of fp32 products, relative


@dataclass(frozen=True)
class SignFlips:
    """signs: ±1 fp64 [flips, pairs], without the study as it is; exact: whether these are all."""

    signs: Tensor
    exact: bool

    @cached_property
    def smallest_p(self) -> float:
        """The smallest p-value there is: the study as it is counts as one of the flips."""
        return 1.0 / (1 + len(self.signs))

    def p_values(self, own: Tensor, largest: Tensor) -> Tensor:
        """Share of flips, the study as it is included, whose largest statistic reaches ``own``.

        own: fp64 [n]; largest: fp64 [flips]. Equal but for rounding counts as reached.
        """
        reached = largest.sort().values
        below = torch.searchsorted(reached, own - _ROUNDING * own.abs())
        return (1 + len(reached) - below).double() / (1 + len(reached))


def sign_flips(pairs: int, flips: int, *, two_sided: bool) -> SignFlips:
    """All sign patterns where they are at most ``flips`` or :data:`EXACT`, otherwise that many
    drawn at random, always the same.

    two_sided: a pattern and its opposite give the same statistic, so that half of them are all.
    """
    free = pairs - 1 if two_sided else pairs
    if free < 60 and 2**free <= max(flips, EXACT):
        return SignFlips(_all_patterns(pairs, free), exact=True)
    draw = torch.Generator().manual_seed(SEED)
    bits = torch.randint(2, (flips, pairs), generator=draw, dtype=torch.int8)
    return SignFlips(1.0 - 2.0 * bits.double(), exact=False)


def _all_patterns(pairs: int, free: int) -> Tensor:
    numbers = torch.arange(1, 2**free)
    bits = (numbers[:, None] >> torch.arange(pairs)) & 1
    return 1.0 - 2.0 * bits.double()
