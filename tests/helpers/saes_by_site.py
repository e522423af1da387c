"""SAEs of several sites as SAELens publishes them: a directory for each, named by its hook."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch

from deltalens.sae import SAE, load_sae, save_saelens
from helpers.tiny_study import D_MODEL


def write_saes(
    root: Path, hooks: Iterable[str], n_latents: int = 40, width: int = D_MODEL
) -> dict[str, SAE]:
    """By hook, each with weights of its own."""
    return {
        hook: write_sae(root / hook, hook, seed, n_latents, width)
        for seed, hook in enumerate(hooks)
    }


def write_sae(
    directory: Path,
    hook: str,
    seed: int = 0,
    n_latents: int = 40,
    width: int = D_MODEL,
    k: int = 4,
) -> SAE:
    draw = torch.Generator().manual_seed(seed)
    W_dec = torch.randn(n_latents, width, generator=draw)
    save_saelens(
        directory,
        W_enc=W_dec.T.contiguous(),
        b_enc=torch.zeros(n_latents),
        W_dec=W_dec,
        b_dec=torch.zeros(width),
        cfg={"k": k, "metadata": {"hook_name": hook, "model_name": "tiny"}},
    )
    return load_sae(directory)
