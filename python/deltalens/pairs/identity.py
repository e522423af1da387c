"""What a run was made of, as short hashes, so that a continued run is the same run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from deltalens.engine.decoder import Decoder
from deltalens.lm import EncodedPair

SAMPLE = 4096  # rows of a decoder that enter a fingerprint


def decoder_fingerprint(source: Any, decoder: Decoder) -> str:
    """The SAE's own hash where it has one, else a hash of evenly spaced rows."""
    known = getattr(source, "fingerprint", None)
    if isinstance(known, str):
        return known
    step = max(1, decoder.n_latents // SAMPLE)
    rows = (decoder.rows(start, start + 1) for start in range(0, decoder.n_latents, step))
    shape = f"{decoder.n_latents} {decoder.d_model} {decoder.dtype}".encode()
    return _digest([shape, *map(_bytes, rows)])


def pairs_fingerprint(encoded: Sequence[EncodedPair]) -> str:
    """Hash of the token ids that run through the model, of the pairs' ids, and of what losses look
    at where that is not all of a completion."""
    return _digest(
        json.dumps([*_shared(item), *_looked_at(item), *_apart(item)]).encode() for item in encoded
    )


def _shared(item: EncodedPair) -> list[Any]:
    return [item.pair.id, item.prompt_ids, item.positive_ids, item.negative_ids, item.counted]


def _apart(item: EncodedPair) -> list[Any]:
    """What not every pair has: tokens that one completion alone follows, and another prompt."""
    own = [[one.ids, one.counted] for one in item.own] if any(one.ids for one in item.own) else []
    other = item.counterpart
    return [*own, *([] if other is None else [other.ids, other.places])]


def _looked_at(item: EncodedPair) -> list[Any]:
    return [row.aims for row in item.rows] if any(item.objectives) else []


def vector_fingerprint(vector: Tensor) -> str:
    """Hash of every element."""
    return _digest([_bytes(vector)])


def _bytes(values: Tensor) -> bytes:
    if values.is_meta or not values.numel():
        return b""
    return values.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()


def _digest(parts: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()[:32]
