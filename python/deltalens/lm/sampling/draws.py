"""Random numbers that belong to a row, and the tokens they choose."""

from __future__ import annotations

from math import isqrt
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from deltalens.errors import InputError
from deltalens.lm.sampling.philox import uniforms

_CHUNK = 1 << 20  # logits at a time: what a processor's cache holds

# Well above what batching changes in logits. In 16 bits that is so much that all would be doubtful.
MARGIN = {torch.float32: 1e-5, torch.float64: 1e-13}


class Choice(NamedTuple):
    """Tokens [rows] int64, and where rounding of the logits could have made them others."""

    tokens: Tensor
    doubtful: Tensor


def gumbels(
    seed: int,
    streams: npt.NDArray[np.uint64],
    steps: npt.NDArray[np.int64],
    vocabulary: int,
    device: torch.device,
) -> Tensor:
    """Gumbel noise for :func:`choose`, float64: a number for each block and each place in one."""
    count = -(-vocabulary // _block(vocabulary)) + _block(vocabulary)
    return -(-uniforms(seed, streams, steps, count, device).log()).log()


def choose(logits: Tensor, noise: Tensor, temperature: float) -> Choice:
    """A token of each row, drawn by two races: one of blocks of the vocabulary, one in the block.

    ``logits`` [rows, vocabulary]; ``noise`` as :func:`gumbels` gives it. The log of a block's
    probability plus its noise is greatest in as many draws as the block is probable; so with
    tokens. ``temperature=0`` is the most probable token and takes no noise. A choice is doubtful
    where another could win by changes of logits within :data:`MARGIN` of the greatest, plus 1.
    Raises :class:`InputError` for logits that are NaN or +∞, or all -∞.
    """
    greatest = logits.amax(dim=-1)
    if not greatest.isfinite().all():
        raise InputError(
            "the model's logits are NaN or infinite; check its weights or lower the steering "
            "strength"
        )
    allowed = MARGIN.get(logits.dtype, 0.0) * (1 + greatest.abs().double())
    if temperature == 0:
        return _winners(logits, allowed)
    allowed /= min(temperature, 1)
    size = _block(logits.shape[1])
    scores = _block_scores(logits, size, temperature)
    blocks, near = _winners(scores + noise[:, :-size], allowed)
    places = blocks.unsqueeze(1) * size + torch.arange(size, device=logits.device)
    inside = places < logits.shape[1]
    within = logits.gather(1, places.clamp(max=logits.shape[1] - 1)).double() / temperature
    tokens, near_within = _winners(within.where(inside, -torch.inf) + noise[:, -size:], allowed)
    return Choice(blocks * size + tokens, near | near_within)


def _block(vocabulary: int) -> int:
    """Tokens in a block: there are about as many blocks."""
    return isqrt(vocabulary - 1) + 1


def _winners(scores: Tensor, allowed: Tensor) -> Choice:
    two = scores.topk(min(2, scores.shape[1]), dim=-1).values.double()
    near = two[:, 0] - two[:, -1] < allowed
    return Choice(scores.argmax(dim=-1), near if scores.shape[1] > 1 else torch.zeros_like(near))


def _block_scores(logits: Tensor, size: int, temperature: float) -> Tensor:
    """The logs of the blocks' probabilities, float64 [rows, blocks]."""
    rows = max(1, _CHUNK // logits.shape[1])
    masses = [_masses(part, size, temperature) for part in logits.split(rows)]
    return torch.cat(masses).double().log()


def _masses(logits: Tensor, size: int, temperature: float) -> Tensor:
    wide = torch.promote_types(logits.dtype, torch.float32)
    mass = torch.softmax(logits.to(wide) / temperature, dim=-1)
    whole = mass.shape[1] // size * size
    sums = mass[:, :whole].unflatten(1, (-1, size)).sum(-1)
    if whole == mass.shape[1]:
        return sums
    return torch.cat([sums, mass[:, whole:].sum(-1, keepdim=True)], dim=1)
