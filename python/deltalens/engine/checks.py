"""Validation, done once by the public functions; everything below them trusts its input."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor

from deltalens.engine.decoder import ROW_DTYPES, Decoder, check_dense
from deltalens.errors import InputError

LARGEST_SCORE = 1e37


def check_rows(name: str, value: Tensor) -> None:
    """``value`` is a floating [tokens ≥ 1, d_model] tensor without NaN or infinity."""
    if not isinstance(value, Tensor):
        raise InputError(f"{name} must be a tensor [tokens, d_model], got {type(value).__name__}")
    check_dense(name, value)
    if value.ndim != 2:
        raise InputError(f"{name} must be [tokens, d_model], got shape {tuple(value.shape)}")
    if value.dtype not in ROW_DTYPES:
        raise InputError(
            f"{name} must be floating point, of 64, 32 or 16 bits, got {value.dtype}; convert it"
        )
    if value.shape[0] == 0:
        raise InputError(f"{name} has no tokens: shape {tuple(value.shape)}")
    check_finite(name, value)


def check_finite(name: str, value: Tensor) -> None:
    """Raise with the number and the first position of NaN or infinite elements."""
    # NaN and infinity survive in a sum, and a sum takes no memory; one that overflows is looked at.
    if math.isfinite(float(value.sum())):
        return
    bad = ~torch.isfinite(value)
    count = int(bad.sum())
    if count:
        first = tuple(bad.nonzero()[0].tolist())
        raise InputError(f"{name} has {count} NaN or infinite elements, the first at {list(first)}")


def check_token_rows(
    acts: Tensor, grads: Tensor, baseline: Tensor | None, weights: Tensor | None
) -> None:
    """The four tensors of a call fit each other; see :func:`deltalens.attribution`."""
    check_rows("acts", acts)
    check_rows("grads", grads)
    if acts.shape != grads.shape:
        raise InputError(
            "acts and grads must have the same shape [tokens, d_model], got "
            f"{tuple(acts.shape)} and {tuple(grads.shape)}"
        )
    if acts.device != grads.device:
        raise InputError(f"acts is on {acts.device} but grads is on {grads.device}")
    if baseline is not None:
        _check_vector("baseline", baseline, acts.shape[1], "d_model")
    if weights is not None:
        _check_vector("weights", weights, acts.shape[0], "tokens")
    _check_range(acts, grads, baseline, weights)


def _check_range(
    acts: Tensor, grads: Tensor, baseline: Tensor | None, weights: Tensor | None
) -> None:
    """No score of a unit row, a float32, can overflow."""
    weight = 1.0 if weights is None else _largest(weights) * len(weights)
    act = _largest(acts) + (0.0 if baseline is None else _largest(baseline))
    largest = weight * act * _largest(grads) * acts.shape[1]
    if not largest < LARGEST_SCORE:
        raise InputError(
            f"acts, grads and weights are so large that scores may reach {largest:.1g}, which is "
            "more than float32 holds; scale them down"
        )


def _largest(values: Tensor) -> float:
    return max(map(abs, map(float, values.aminmax()))) if values.numel() else 0.0


def _check_vector(name: str, value: Tensor, length: int, meaning: str) -> None:
    if isinstance(value, Tensor):
        check_dense(name, value)
    if not isinstance(value, Tensor) or value.dtype not in ROW_DTYPES:
        found = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise InputError(f"{name} must be a floating-point tensor [{meaning}], got {found}")
    if value.shape != (length,):
        raise InputError(f"{name} must be [{meaning}] = [{length}], got shape {tuple(value.shape)}")
    check_finite(name, value)


def check_width(decoder: Decoder, d_model: int) -> None:
    """The decoder reads the same residual stream as the rows."""
    if decoder.d_model != d_model:
        raise InputError(
            f"W_dec has d_model {decoder.d_model} but acts and grads have d_model {d_model}"
        )


def check_k(k: int, n_latents: int) -> None:
    """1 ≤ k ≤ n_latents."""
    if isinstance(k, bool) or not isinstance(k, int):
        raise InputError(f"k must be an integer, got {k!r}")
    if k < 1:
        raise InputError(f"k must be at least 1, got {k}")
    if k > n_latents:
        raise InputError(f"k is {k} but W_dec has only {n_latents} latents")


def check_segments(segments: Tensor, tokens: int) -> list[int]:
    """The offsets 0 = o_0 < o_1 < … < o_n = tokens that ``segments`` holds."""
    if not isinstance(segments, Tensor) or segments.ndim != 1 or segments.numel() < 2:
        found = tuple(segments.shape) if isinstance(segments, Tensor) else type(segments).__name__
        raise InputError(f"segments must be a tensor of offsets [segments + 1], got {found}")
    if segments.is_floating_point() or segments.is_complex() or segments.dtype == torch.bool:
        raise InputError(f"segments must be integers, got {segments.dtype}")
    offsets: list[int] = segments.tolist()
    if offsets[0] != 0 or offsets[-1] != tokens:
        raise InputError(
            f"segments must go from 0 to the {tokens} tokens, got {offsets[0]} … {offsets[-1]}"
        )
    for i, (start, stop) in enumerate(pairwise(offsets)):
        if start >= stop:
            raise InputError(f"segments must rise, got {start} then {stop} at {[i, i + 1]}")
    return offsets
