"""Graded answers of many latents to the same prompts, and the changes that they amount to."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Outcomes:
    """Counts of answers, prompt by prompt.

    shown, graded: fp64 [latents, prompts], answers that show the behaviour and answers that could
    be graded; used: bool [latents, prompts], prompts that a latent was steered on. plain_shown,
    plain_graded: fp64 [prompts], the same without steering. A latent's change is taken against
    the unsteered model on the prompts that the latent was steered on.
    """

    shown: Tensor
    graded: Tensor
    used: Tensor
    plain_shown: Tensor
    plain_graded: Tensor

    def changes(self) -> Tensor:
        """Change of the behaviour's rate, fp64 [latents]; NaN where nothing could be graded."""
        return self._rates() - self._plain_rates()

    def own_parts(self) -> Tensor:
        """How far each prompt's steered answers pull a latent's change off, [latents, prompts].

        The change's influence function: a row sums to 0, its squares to the sampling variance.
        """
        left = self.shown - self._rates()[:, None] * self.graded
        return left / self.graded.sum(1, keepdim=True)

    def plain_parts(self) -> Tensor:
        """The same of the unsteered answers, [latents, prompts]."""
        graded = self.plain_graded * self.used
        left = self.plain_shown * self.used - self._plain_rates()[:, None] * graded
        return -left / graded.sum(1, keepdim=True)

    def _rates(self) -> Tensor:
        return self.shown.sum(1) / self.graded.sum(1)

    def _plain_rates(self) -> Tensor:
        used = self.used.double()
        return (used @ self.plain_shown) / (used @ self.plain_graded)
