"""Latent activations of TopK SAEs in SAELens layout."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from deltalens.errors import InputError
from deltalens.sae.checkpoint import SAE


def topk_encoder(sae: SAE) -> Callable[[Tensor], Tensor]:
    """The SAE's encoder: activations [tokens, d_model] → latents [tokens, n_latents], fp32.

    ``relu(x @ W_enc + b_enc)`` with all but the k largest of each token set to zero, where x is
    ``acts - b_dec`` when the configuration says ``apply_b_dec_to_input`` and ``acts`` otherwise.
    Raises :class:`InputError` for an SAE of another format or architecture, or one that
    normalises its input.
    """
    config = sae.metadata
    architecture = config.get("architecture")
    if sae.format != "saelens" or architecture != "topk":
        raise InputError(
            f"{sae.path} is a {sae.format} SAE of architecture {architecture}; "
            "only SAELens topk SAEs can be encoded with"
        )
    if config.get("normalize_activations", "none") != "none":
        raise InputError(
            f"{sae.path} normalises its input ({config['normalize_activations']}), "
            "which is not supported"
        )
    W_enc, b_enc = sae.tensor("W_enc").float(), sae.tensor("b_enc").float()
    b_dec = sae.tensor("b_dec").float() if config.get("apply_b_dec_to_input", True) else None
    k = int(config["k"])

    def encode(acts: Tensor) -> Tensor:
        centred = acts.float() if b_dec is None else acts.float() - b_dec
        before = torch.relu(centred @ W_enc + b_enc)
        values, latents = before.topk(k, dim=1)
        return torch.zeros_like(before).scatter_(1, latents, values)

    return encode
