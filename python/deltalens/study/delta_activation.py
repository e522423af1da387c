"""Mean latent activations, and the latents that differ most between two models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from deltalens.lm import Site, activations, find_bos
from deltalens.study.encode import encode_prompt
from deltalens.study.pair_row import Prompt

_TOKENS = 1024


@dataclass(frozen=True)
class LatentMeans:
    """Over ``tokens`` tokens: each latent's mean activation and how often it is active.

    mean, frequency: fp64 [n_latents].
    """

    mean: Tensor
    frequency: Tensor
    tokens: int

    @property
    def live(self) -> Tensor:
        """Latents that were active at least once, int64, ascending."""
        return (self.frequency > 0).nonzero()[:, 0]


def latent_means(
    model: nn.Module,
    tokenizer: Any,
    prompts: Sequence[Prompt],
    encode: Callable[[Tensor], Tensor],
    *,
    site: int | str | Site,
    progress: bool = False,
) -> LatentMeans:
    """Mean activation of every latent over the prompts' tokens, a leading BOS excluded.

    encode: activations [tokens, d_model] → latents [tokens, n_latents]; it sees at most 1024
    tokens at a time.
    """
    bos = find_bos(model, tokenizer)
    ids = [
        encode_prompt(tokenizer, prompt, bos=bos, name=f"prompt {number}")
        for number, prompt in enumerate(prompts)
    ]
    total = active = torch.zeros(())
    tokens = 0
    for number, rows in activations(model, ids, site=site, progress=progress):
        for part in rows[1 if ids[number][0] == bos else 0 :].split(_TOKENS):
            latents = encode(part)
            total = total + latents.sum(0, dtype=torch.float64)
            active = active + (latents > 0).sum(0)
            tokens += len(part)
    return LatentMeans(total / tokens, active.double() / tokens, tokens)


def top_delta_activation(changed: LatentMeans, original: LatentMeans, k: int) -> Tensor:
    """The k latents whose mean activation grew most from ``original`` to ``changed``, int64 [k].

    The comparison set of the published method: both over the same prompts, in two models.
    """
    difference = changed.mean - original.mean
    return torch.argsort(difference, descending=True, stable=True)[:k]
