"""SAEs of every activation, made in memory for a site of the tiny models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deltalens.engine.decoder import TensorDecoder
from deltalens.sae.checkpoint import SAE
from deltalens.sae.encoding import Encoding, Gated, GroupMax, ReLU, Threshold, TopK

LATENTS = 60


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


ACTIVATIONS: dict[str, Any] = {
    "relu": ReLU(),
    "topk": TopK(7),
    "threshold": Threshold(draw(LATENTS, seed=2).abs()),
    "gated": Gated(draw(LATENTS, seed=3).exp(), draw(LATENTS, seed=4), draw(LATENTS, seed=5)),
    "groupmax": GroupMax(6),
}


def made_sae(width: int, activation: str, site: str, **settings: Any) -> SAE:
    """With random weights, the same each time; settings are those of its encoding."""
    encoding = Encoding(
        W_enc=TensorDecoder(draw(LATENTS, width, seed=6)),
        b_enc=None if activation == "gated" else draw(LATENTS, seed=7),
        b_dec=draw(width, seed=8),
        activation=ACTIVATIONS[activation],
        **{"subtract_b_dec": True, **settings},
    )
    W_dec = TensorDecoder(draw(LATENTS, width, seed=10))
    weights: Any = None
    return SAE(W_dec, "made", Path("made"), site, None, {}, weights, lambda: encoding)
