"""Random numbers that belong to a row, and the tokens they choose."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from deltalens.errors import InputError

_CHUNK = 1 << 24  # probabilities in float64 at a time

# Well above what batching changes in logits. In 16 bits that is so much that all would be doubtful.
MARGIN = {torch.float32: 1e-5, torch.float64: 1e-13}


def draws(seed: int, stream: int, count: int) -> npt.NDArray[np.float64]:
    """``count`` uniform numbers in [0, 1) from the stream of (``seed``, ``stream``)."""
    key = np.array([seed, stream], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key)).random(count)


class Choice(NamedTuple):
    """Tokens [rows] int64, and where rounding of the logits could have made them others."""

    tokens: Tensor
    doubtful: Tensor


def choose(logits: Tensor, numbers: Tensor, temperature: float) -> Choice:
    """The token where each row's cumulative distribution passes its number.

    ``logits`` [rows, vocabulary]; ``numbers`` [rows] in [0, 1), float64. ``temperature=0`` is the
    most probable token. A choice is doubtful within :data:`MARGIN` of its logits' type, as a share
    of all probability, of another. Raises :class:`InputError` for logits with NaN.
    """
    if logits.isnan().any():
        raise InputError(
            "the model's logits are NaN; check its weights or lower the steering strength"
        )
    margin = MARGIN.get(logits.dtype, 0.0)
    if temperature == 0:
        return _most_probable(logits, margin)
    rows = max(1, _CHUNK // logits.shape[-1])
    parts = zip(logits.split(rows), numbers.to(logits.device).split(rows), strict=True)
    chosen = [_by_inverse(part, sought, temperature, margin) for part, sought in parts]
    return Choice(*(torch.cat(found) for found in zip(*chosen, strict=True)))


def _most_probable(logits: Tensor, margin: float) -> Choice:
    two = logits.topk(min(2, logits.shape[-1]), dim=-1)
    gap = two.values[:, 0] - two.values[:, -1]
    return Choice(logits.argmax(dim=-1), gap < margin * (1 + two.values[:, 0].abs()))


def _by_inverse(logits: Tensor, numbers: Tensor, temperature: float, margin: float) -> Choice:
    mass = torch.softmax(logits.double() / temperature, dim=-1).cumsum(dim=-1)
    sought = numbers.unsqueeze(1) * mass[:, -1:]
    found = torch.searchsorted(mass, sought, right=True).clamp_(max=logits.shape[-1] - 1)
    upper = mass.gather(1, found)
    lower = mass.gather(1, (found - 1).clamp(min=0)).where(found > 0, 0.0)
    doubtful = torch.minimum(upper - sought, sought - lower) < margin
    return Choice(found.squeeze(1), doubtful.squeeze(1))
