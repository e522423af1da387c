"""A checkpoint's identity, for the record of a run."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

WHOLE_UP_TO = 1 << 30
BLOCK_BYTES = 1 << 20
SAMPLED_BLOCKS = 128


def fingerprint(path: Path, whole_up_to: int = WHOLE_UP_TO) -> str:
    """``sha256:…`` over the file; over ``whole_up_to`` bytes ``sha256-sampled:…``.

    The latter covers the size in bytes (decimal) and 128 blocks of 1 MiB at equal distances, the
    first at the head of the file and the last at its tail.
    """
    size = path.stat().st_size
    if size <= whole_up_to:
        return f"sha256:{_digest(path, b'', range(0, size, BLOCK_BYTES))}"
    last = SAMPLED_BLOCKS - 1
    starts = (block * (size - BLOCK_BYTES) // last for block in range(SAMPLED_BLOCKS))
    return f"sha256-sampled:{_digest(path, str(size).encode(), starts)}"


def _digest(path: Path, prefix: bytes, starts: Iterable[int]) -> str:
    digest = hashlib.sha256(prefix)
    with path.open("rb") as file:
        for start in starts:
            file.seek(start)
            digest.update(file.read(BLOCK_BYTES))
    return digest.hexdigest()
