"""The draw of a token as its documentation says it, in plain Python: one number at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence

WORD = 2**32


def philox4x32(counter: Sequence[int], key: Sequence[int]) -> list[int]:
    """Ten rounds, as in Random123's reference: counter of four words, key of two."""
    words, (low, high) = list(counter), key
    for _ in range(10):
        high_0, low_0 = divmod(0xD2511F53 * words[0], WORD)
        high_1, low_1 = divmod(0xCD9E8D57 * words[2], WORD)
        words = [high_1 ^ words[1] ^ low, low_1, high_0 ^ words[3] ^ high, low_0]
        low, high = (low + 0x9E3779B9) % WORD, (high + 0xBB67AE85) % WORD
    return words


def uniform(seed: int, stream: int, step: int, place: int) -> float:
    """Number ``place`` of the stream at the step, inside (0, 1)."""
    counter = (place // 4, step, stream % WORD, stream // WORD)
    return (philox4x32(counter, (seed % WORD, seed // WORD))[place % 4] + 0.5) / WORD


def drawn(
    logits: Sequence[float], seed: int, stream: int, step: int, temperature: float = 1.0
) -> int:
    """The token: the winner among the tokens of the block that wins among the blocks."""

    def noise(place: int) -> float:
        return -math.log(-math.log(uniform(seed, stream, step, place)))

    scaled = [value / temperature for value in logits]
    size = math.ceil(math.sqrt(len(scaled)))
    starts = range(0, len(scaled), size)
    greatest = max(scaled)

    def block_score(number: int) -> float:
        mass = math.fsum(math.exp(x - greatest) for x in scaled[starts[number] :][:size])
        return (math.log(mass) if mass else -math.inf) + noise(number)

    first = starts[max(range(len(starts)), key=block_score)]
    inside = range(first, min(first + size, len(scaled)))
    return max(inside, key=lambda token: scaled[token] + noise(len(starts) + token - first))
