"""Random numbers that belong to a row, and the tokens they choose."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from deltalens.errors import InputError

_CHUNK = 1 << 24  # probabilities in float64 at a time


def draws(seed: int, stream: int, count: int) -> npt.NDArray[np.float64]:
    """``count`` uniform numbers in [0, 1) from the stream of (``seed``, ``stream``)."""
    key = np.array([seed, stream], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key)).random(count)


def choose(logits: Tensor, numbers: Tensor, temperature: float) -> Tensor:
    """The token where each row's cumulative distribution passes its number: [rows] int64.

    ``logits`` [rows, vocabulary]; ``numbers`` [rows] in [0, 1), float64. ``temperature=0`` is the
    most probable token. Raises :class:`InputError` for logits with NaN.
    """
    if logits.isnan().any():
        raise InputError(
            "the model's logits are NaN; check its weights or lower the steering strength"
        )
    if temperature == 0:
        return logits.argmax(dim=-1)
    rows = max(1, _CHUNK // logits.shape[-1])
    parts = zip(logits.split(rows), numbers.to(logits.device).split(rows), strict=True)
    return torch.cat([_by_inverse(part, sought, temperature) for part, sought in parts])


def _by_inverse(logits: Tensor, numbers: Tensor, temperature: float) -> Tensor:
    mass = torch.softmax(logits.double() / temperature, dim=-1).cumsum(dim=-1)
    sought = numbers.unsqueeze(1) * mass[:, -1:]
    found = torch.searchsorted(mass, sought, right=True).squeeze(1)
    return found.clamp_(max=logits.shape[-1] - 1)
