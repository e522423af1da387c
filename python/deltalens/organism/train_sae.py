"""Training a TopK SAE (Gao et al. 2024, arXiv:2406.04093) on a matrix of activations."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from deltalens.lm.progress import Progress
from deltalens.organism.recipe import Recipe


class TopK(nn.Module):
    """``relu(topk((x - b_dec) @ W_enc + b_enc)) @ W_dec + b_dec`` with unit decoder rows."""

    def __init__(self, d_model: int, latents: int, k: int, generator: torch.Generator) -> None:
        super().__init__()
        rows = normalize(torch.randn(latents, d_model, generator=generator), dim=1)
        self.k = k
        self.W_dec = nn.Parameter(rows)
        self.W_enc = nn.Parameter(rows.T.clone())
        self.b_enc = nn.Parameter(torch.zeros(latents))
        self.b_dec = nn.Parameter(torch.zeros(d_model))

    def forward(self, x: Tensor) -> Tensor:
        before = (x - self.b_dec) @ self.W_enc + self.b_enc
        values, latents = before.topk(self.k, dim=1)
        active = torch.zeros_like(before).scatter(1, latents, values.relu())
        return active @ self.W_dec + self.b_dec


def train_sae(rows: Tensor, recipe: Recipe, *, progress: bool = False) -> dict[str, Tensor]:
    """W_enc [d, latents], b_enc [latents], W_dec [latents, d], b_dec [d] for ``rows`` [tokens, d].

    Trained on rows of mean 0 and variance 1 on average; both are folded into what is returned.
    """
    generator = torch.Generator().manual_seed(recipe.seed)
    mean, scale = rows.mean(0), rows.std(0).square().mean().sqrt()
    sae = TopK(rows.shape[1], recipe.latents, recipe.k, generator)
    optimizer = torch.optim.Adam(sae.parameters(), lr=recipe.sae_learning_rate)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, recipe.sae_steps)
    with Progress(progress, "SAE, steps", recipe.sae_steps) as bar:
        for _ in range(recipe.sae_steps):
            drawn = torch.randint(len(rows), (recipe.sae_batch,), generator=generator)
            _descend(sae, (rows[drawn] - mean) / scale, optimizer)
            schedule.step()
            bar.advance()
    return {
        "W_enc": sae.W_enc.detach() / scale,
        "b_enc": sae.b_enc.detach(),
        "W_dec": sae.W_dec.detach() * scale,
        "b_dec": sae.b_dec.detach() * scale + mean,
    }


def _descend(sae: TopK, x: Tensor, optimizer: torch.optim.Optimizer) -> None:
    loss = (sae(x) - x).square().sum(1).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    with torch.no_grad():
        sae.W_dec.copy_(normalize(sae.W_dec, dim=1))
