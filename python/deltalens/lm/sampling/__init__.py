"""Completions from a pool of rows that share one cache, each with its own stream and steering."""

from deltalens.lm.sampling.api import GENERATION_TOKENS, sample, sample_stream

__all__ = [
    "GENERATION_TOKENS",
    "sample",
    "sample_stream",
]
