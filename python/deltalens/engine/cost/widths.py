"""How narrow a screen's intervals are worth being: narrower ones leave fewer rows to the scorer.

A width is half of an interval over the spread of the scores of rows in all directions, which are
taken as normal.
"""

from __future__ import annotations

from statistics import NormalDist

import torch

_NORMAL = NormalDist()
_BFLOAT16, _FLOAT16 = 2.0**-9.25, 2.0**-12.25  # what rounding takes away: in root mean square


def share_left(width: float, k: int, n_latents: int) -> float:
    """Of the decoder's rows, those that reach the k-th best from within intervals so wide."""
    return 1 - _NORMAL.cdf(_kth(k, n_latents) - 2 * width)


def width_for(share: float, k: int, n_latents: int) -> float:
    """The width that leaves such a share, 0 where the best alone are more."""
    share = min(max(share, 1e-12), 1 - 1e-12)
    return max(0.0, (_kth(k, n_latents) - _NORMAL.inv_cdf(1 - share)) / 2)


def expected_width(
    form: str, tokens: int, d_model: int, squarings: int, dtype: torch.dtype = torch.bfloat16
) -> float:
    """Of a bound after so many squarings, on roundings of random signs, for a decoder of ``dtype``;
    where that is float32 a screen takes float16.

    The Frobenius norm of what is lost exceeds its spectral norm by √(rank), about; s squarings
    leave the 2ˢ-th root of that.
    """
    terms = 2.0 if form == "token" else 1.0  # both operands are rounded there
    rank = min(d_model, 4 * tokens) if form == "token" else d_model
    rounded = _BFLOAT16 if dtype == torch.bfloat16 else _FLOAT16
    frobenius = rounded * d_model * (terms / 2) ** 0.5
    return frobenius * max(1.0, rank / 2) ** ((2.0**-squarings - 1) / 2)


def _kth(k: int, n_latents: int) -> float:
    """Spreads above the mean at which the k-th best is."""
    return _NORMAL.inv_cdf(1 - min(k / n_latents, 1 - 1e-12))
