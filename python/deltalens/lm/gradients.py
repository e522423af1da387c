"""Providers of activations and gradients at a site: plain and integrated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from deltalens.errors import InputError
from deltalens.lm.forward import Loss, batch_losses, batch_slope
from deltalens.lm.rows import RowBatch
from deltalens.lm.sites import Site


@dataclass(frozen=True)
class BatchGradients:
    """Counted rows of a batch, row after row: ``acts`` and ``grads`` [counted, d_model] float32.

    ``losses`` [rows] are float64. All on the CPU.
    """

    acts: Tensor
    grads: Tensor
    losses: Tensor


# Called without gradients and outside inference mode.
Provider = Callable[[Any, Site, RowBatch, Loss], BatchGradients]
Move = Callable[[Tensor, RowBatch], Tensor]


def plain_gradients(model: Any, site: Site, batch: RowBatch, loss: Loss) -> BatchGradients:
    """The gradient of each row's loss at the site's output: one forward and one backward."""
    return _gradients_at(model, site, batch, loss, lambda hidden, _: hidden)


def integrated_gradients(baseline: Tensor, steps: int) -> Provider:
    """Gradients averaged along the straight line from ``baseline`` [d_model] to the activations.

    All counted tokens move together and the rest stays: step j of n evaluates at
    ā + α(a − ā), α = (j + ½)/n (midpoint rule), so Σ_t (a_t − ā)·g_t tends to L(a) − L(ā)
    (Sundararajan, Taly & Yan 2017). One backward per step; losses are those at a.
    """
    if steps < 1:
        raise InputError(f"integrated gradients need at least 1 step, got {steps}")

    def provider(model: Any, site: Site, batch: RowBatch, loss: Loss) -> BatchGradients:
        start = _unmoved(model, site, batch, loss)
        grads = torch.zeros_like(start.acts, dtype=torch.float64)
        for step in range(steps):
            move = _toward(baseline, (step + 0.5) / steps)
            grads += _gradients_at(model, site, batch, loss, move).grads
        return BatchGradients(start.acts, (grads / steps).float(), start.losses)

    return provider


def _toward(baseline: Tensor, fraction: float) -> Move:
    def move(hidden: Tensor, batch: RowBatch) -> Tensor:
        wide = torch.promote_types(hidden.dtype, torch.float32)
        mean = baseline.to(hidden.device, wide)
        point = mean + fraction * (hidden.to(wide) - mean)
        return torch.where(batch.counted[..., None], point.to(hidden.dtype), hidden)

    return move


def _gradients_at(
    model: Any, site: Site, batch: RowBatch, loss: Loss, move: Move
) -> BatchGradients:
    """Gradients at the point ``move`` takes the site's output to, with that point as ``acts``."""
    leaves: list[Tensor] = []

    def at_site(hidden: Tensor) -> Tensor:
        torch.set_grad_enabled(True)  # blocks below have run without a graph; those above have one
        leaves.append(move(hidden, batch.to(hidden.device)).detach().requires_grad_(True))
        return leaves[0]

    with torch.no_grad():  # puts the mode back that at_site has changed
        losses, slope = batch_slope(model, batch, site, at_site, loss)
    grad = None
    if slope.hidden.requires_grad:
        (grad,) = torch.autograd.grad(slope.hidden, leaves, slope.gradient, allow_unused=True)
    if grad is None:
        raise InputError(
            f"no gradient reaches {site.name}: blocks above it do not use its output; "
            "load the model on one device"
        )
    return BatchGradients(_counted(leaves[0], batch), _counted(grad, batch), losses.cpu().double())


def _unmoved(model: Any, site: Site, batch: RowBatch, loss: Loss) -> BatchGradients:
    seen: list[Tensor] = []

    def at_site(hidden: Tensor) -> Tensor:
        seen.append(_counted(hidden, batch))
        return hidden

    losses = batch_losses(model, batch, site, at_site, loss)
    return BatchGradients(seen[0], torch.zeros_like(seen[0]), losses.cpu().double())


def _counted(values: Tensor, batch: RowBatch) -> Tensor:
    return values.detach()[batch.counted.to(values.device)].float().cpu()
