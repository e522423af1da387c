"""The scorers of the encoder-gated form by the name of an implementation."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from deltalens.engine.latent.impl.cpp import LatentScorer as CppScorer
from deltalens.engine.latent.impl.torch import LatentScorer as TorchScorer
from deltalens.engine.latent.rows import ExactLatents, LatentScorer, LatentSource


def prepared_by(impl: str, dtypes: set[torch.dtype]) -> Callable[[LatentSource], LatentScorer]:
    """What prepares a scorer for matrices of those dtypes."""
    if impl == "torch":
        return TorchScorer.prepare
    if impl == "cpp":
        return CppScorer.prepare
    if impl == "triton":
        from deltalens.engine.latent.impl.triton import LatentScorer as TritonScorer

        shared = next(iter(dtypes)) if len(dtypes) == 1 else torch.float32
        return partial(TritonScorer.prepare, dtype=shared)
    return ExactLatents
