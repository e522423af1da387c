"""Random numbers that belong to a row, and the tokens they choose."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from deltalens.errors import InputError

_CHUNK = 1 << 24  # probabilities at a time
_BLOCK = 512  # tokens of the vocabulary whose probabilities are added up together

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
    """By the sums of blocks of the vocabulary, then within the block that the number falls in."""
    mass = _mass(logits, temperature)  # [rows, blocks, block]
    blocks = mass.sum(-1, dtype=torch.float64).cumsum(-1)
    sought = numbers.unsqueeze(1) * blocks[:, -1:]
    block = torch.searchsorted(blocks, sought, right=True).clamp_(max=blocks.shape[1] - 1)
    before = blocks.gather(1, (block - 1).clamp(min=0)).where(block > 0, 0.0)
    within = mass.gather(1, block.unsqueeze(2).expand(-1, -1, mass.shape[2])).squeeze(1)
    ends = before + within.double().cumsum(-1)
    place = torch.searchsorted(ends, sought, right=True).clamp_(max=ends.shape[1] - 1)
    upper = ends.gather(1, place)
    lower = ends.gather(1, (place - 1).clamp(min=0)).where(place > 0, before)
    share = margin * blocks[:, -1:]
    doubtful = torch.minimum(upper - sought, sought - lower) < share
    found = (block * mass.shape[2] + place).clamp_(max=logits.shape[-1] - 1)
    return Choice(found.squeeze(1), doubtful.squeeze(1))


def _mass(logits: Tensor, temperature: float) -> Tensor:
    """Probabilities in float32 or wider, in blocks."""
    scaled = logits.to(torch.promote_types(logits.dtype, torch.float32)) / temperature
    mass = torch.softmax(scaled, dim=-1)
    rest = -mass.shape[1] % _BLOCK
    if rest:
        mass = torch.nn.functional.pad(mass, (0, rest))
    return mass.view(len(mass), -1, _BLOCK)
