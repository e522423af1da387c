"""Random numbers by position: Philox4x32-10 of Salmon et al. (SC 2011), for many rows at once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

_ROUNDS = 10
_MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
_KEY_STEPS = 0x9E3779B9, 0xBB67AE85
_WORD = 0xFFFFFFFF

Words = tuple[Tensor, Tensor, Tensor, Tensor]


def philox(counter: Words, key: int) -> Words:
    """Four random words of 32 bits for each counter of four, which broadcast, under ``key`` of 64.

    Words are int64 tensors with values in [0, 2³²).
    """
    a, b, c, d = counter
    low, high = key & _WORD, key >> 32
    for _ in range(_ROUNDS):
        first, second = a * _MULTIPLIERS[0], c * _MULTIPLIERS[1]  # modulo 2⁶⁴, all bits kept
        a, b, c, d = (
            ((second >> 32) & _WORD) ^ b ^ low,
            second & _WORD,
            ((first >> 32) & _WORD) ^ d ^ high,
            first & _WORD,
        )
        low, high = (low + _KEY_STEPS[0]) & _WORD, (high + _KEY_STEPS[1]) & _WORD
    return a, b, c, d


def uniforms(
    seed: int,
    streams: npt.NDArray[np.uint64],
    steps: npt.NDArray[np.int64],
    count: int,
    device: torch.device,
) -> Tensor:
    """[rows, count] numbers inside (0, 1), float64: those of each row's stream at its step.

    Number i depends on the seed, the stream, the step and i, on nothing else.
    """
    place = torch.arange(-(-count // 4), device=device).unsqueeze(0)
    halves = steps, streams & np.uint64(_WORD), streams >> np.uint64(32)
    step, low, high = (
        torch.from_numpy(half.astype(np.int64)).to(device).unsqueeze(1) for half in halves
    )
    words = philox((place, step, low, high), seed)
    return (torch.stack(words, dim=2).flatten(1)[:, :count].double() + 0.5) / 2**32
