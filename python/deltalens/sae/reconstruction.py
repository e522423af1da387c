"""How well an SAE rebuilds activations, from sums over tokens."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity


@dataclass(frozen=True)
class Reconstruction:
    """Over ``tokens`` tokens x with reconstructions x̂."""

    tokens: int
    explained: float
    """Fraction of variance explained: 1 − Σ‖x − x̂‖² / Σ‖x − mean x‖²."""
    cosine: float
    """Mean over tokens of cos(x, x̂)."""
    l0: float
    """Mean number of active latents of a token."""
    active: Tensor
    """In how many tokens each latent was active, int64 [n_latents]."""

    @property
    def dead(self) -> Tensor:
        """Latents that no token activated, int64, ascending."""
        return (self.active == 0).nonzero()[:, 0]


class ReconstructionSums:
    """What a :class:`Reconstruction` is made of, a batch of tokens at a time, in fp64."""

    def __init__(self, n_latents: int, device: torch.device) -> None:
        self._active = torch.zeros(n_latents, dtype=torch.int64, device=device)
        self._unexplained = self._cosine = 0.0
        self._tokens = 0
        self._mean: Tensor | float = 0.0
        self._spread = 0.0

    def add_latents(self, start: int, z: Tensor) -> None:
        """Latents [tokens, n] from ``start`` on of the tokens to be added."""
        self._active[start : start + z.shape[1]] += (z > 0).sum(dim=0)

    def add_rebuilt(self, target: Tensor, rebuilt: Tensor) -> None:
        """A batch of tokens [tokens, d_out] and their reconstructions."""
        self._unexplained += float((target - rebuilt).double().square().sum())
        self._cosine += float(cosine_similarity(target, rebuilt, dim=1).double().sum())
        self._add_spread(target.double())

    def _add_spread(self, target: Tensor) -> None:
        # Chan, Golub, LeVeque 1979: squares around the common mean without a second pass.
        count, mean = len(target), target.mean(dim=0)
        apart = float((mean - self._mean).square().sum())
        both = self._tokens + count
        self._spread += float((target - mean).square().sum()) + apart * self._tokens * count / both
        self._mean = self._mean + (mean - self._mean) * (count / both)
        self._tokens = both

    def result(self) -> Reconstruction:
        """The ratios; ``explained`` is NaN when the targets do not vary."""
        varies = self._spread > 0
        return Reconstruction(
            tokens=self._tokens,
            explained=1 - self._unexplained / self._spread if varies else float("nan"),
            cosine=self._cosine / self._tokens,
            l0=float(self._active.sum()) / self._tokens,
            active=self._active.cpu(),
        )
