"""Providers of activations and gradients at sites: plain and integrated."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from deltalens.errors import InputError
from deltalens.lm.forward import Loss, batch_losses, batch_slope
from deltalens.lm.points.replacing import Visit, Visited, visiting
from deltalens.lm.rows import RowBatch
from deltalens.lm.sites import Site


@dataclass(frozen=True)
class SiteBatch:
    """A batch as one site counts its tokens; batches of several sites differ in nothing else."""

    site: Site
    batch: RowBatch

    def counted(self, values: Tensor) -> Tensor:
        """The counted of ``values`` [rows, seq, d_model], row after row, float32 on the CPU."""
        return values.detach()[self.batch.counted.to(values.device)].float().cpu()


@dataclass(frozen=True)
class BatchGradients:
    """Counted rows of a batch, row after row: ``acts`` and ``grads`` [counted, d_model] float32.

    ``losses`` [rows] are float64. All on the CPU.
    """

    acts: Tensor
    grads: Tensor
    losses: Tensor


# Called without gradients and outside inference mode; gives each site's, in their order.
Provider = Callable[[Any, Sequence[SiteBatch], Loss], list[BatchGradients]]
Move = Callable[[Tensor, RowBatch], Tensor]
Start = Callable[[Tensor], Tensor]
"""From activations [n, d_model], float32 on the CPU, to where their ways begin: a point for each,
or one [d_model] for all."""


def plain_gradients(model: Any, at: Sequence[SiteBatch], loss: Loss) -> list[BatchGradients]:
    """The gradients of each row's loss at every site: one forward and one backward for all."""
    return _gradients_at(model, at, loss, lambda hidden, _: hidden)


def integrated_gradients(starts: Sequence[Start], steps: int) -> Provider:
    """Gradients averaged along the straight lines from a site's start to activations.

    All counted tokens move together and the rest stays: step j of n evaluates at
    s + α(a − s), α = (j + ½)/n (midpoint rule), so Σ_t (a_t − s_t)·g_t tends to L(a) − L(s)
    (Sundararajan, Taly & Yan 2017). One backward per step and site, for each moves what all above
    it read; losses are those at a. ``starts`` are in the order of the sites.
    """
    if steps < 1:
        raise InputError(f"integrated gradients need at least 1 step, got {steps}")

    def provider(model: Any, at: Sequence[SiteBatch], loss: Loss) -> list[BatchGradients]:
        return [
            _integrated(model, one, unmoved, start(unmoved.acts), steps, loss)
            for one, unmoved, start in zip(at, _unmoved(model, at, loss), starts, strict=True)
        ]

    return provider


def _integrated(
    model: Any, at: SiteBatch, unmoved: BatchGradients, start: Tensor, steps: int, loss: Loss
) -> BatchGradients:
    grads = torch.zeros_like(unmoved.acts, dtype=torch.float64)
    for step in range(steps):
        (found,) = _gradients_at(model, [at], loss, _onward(start, (step + 0.5) / steps))
        grads += found.grads
    return BatchGradients(unmoved.acts, (grads / steps).float(), unmoved.losses)


def _onward(start: Tensor, fraction: float) -> Move:
    """From ``start``, [d_model] or of each counted token [counted, d_model]."""

    def move(hidden: Tensor, batch: RowBatch) -> Tensor:
        wide = torch.promote_types(hidden.dtype, torch.float32)
        begin, moved = start.to(hidden.device, wide), hidden.clone()
        point = begin + fraction * (hidden[batch.counted].to(wide) - begin)
        moved[batch.counted] = point.to(hidden.dtype)
        return moved

    return move


class _Tap:
    """Takes a site's activations as they pass, and their gradient as it comes back.

    The graph begins at every site that none of the others lies below; there the activations become
    ``leaf``, moved by ``move``. At the others they stay what they are.
    """

    def __init__(self, at: SiteBatch, move: Move) -> None:
        self._at, self._move = at, move
        self.acts: Tensor | None = None
        self.grads: Tensor | None = None
        self.leaf: Tensor | None = None

    def visit(self, visited: Visited) -> Tensor:
        value = visited.value
        if torch.is_grad_enabled() and visited.carrier.grad_fn is not None:
            self.acts = self._at.counted(value)
            back = partial(self._keep_of_carrier, value.shape, value.dtype, visited.scale)
            visited.carrier.register_hook(back)
            return value
        torch.set_grad_enabled(True)  # blocks below have run without a graph; those above have one
        batch = self._at.batch.to(value.device)
        self.leaf = self._move(value, batch).detach().requires_grad_(True)
        self.acts = self._at.counted(self.leaf)
        return self.leaf

    def keep(self, gradient: Tensor | None) -> None:
        """The gradient at the leaf."""
        self.grads = None if gradient is None else self._at.counted(gradient)

    def _keep_of_carrier(
        self, shape: torch.Size, dtype: torch.dtype, scale: float, gradient: Tensor
    ) -> None:
        at_value = gradient.reshape(shape).to(dtype)
        self.keep(at_value if scale == 1 else at_value / scale)

    def result(self, losses: Tensor) -> BatchGradients:
        """Raises :class:`InputError` where no gradient came back."""
        if self.acts is None or self.grads is None:
            raise InputError(
                f"no gradient reaches {self._at.site.name}: blocks above it do not use its output; "
                "load the model on one device"
            )
        return BatchGradients(self.acts, self.grads, losses)


def _gradients_at(
    model: Any, at: Sequence[SiteBatch], loss: Loss, move: Move
) -> list[BatchGradients]:
    """Gradients at the points ``move`` takes the sites' tensors to, with those points as ``acts``.

    Only a single site may be moved: what lies above it moves with it.
    """
    taps = [_Tap(one, move) for one in at]
    hooks = _visiting_all(at, [tap.visit for tap in taps])
    with torch.no_grad():  # puts the mode back that a tap has changed
        losses, slope = batch_slope(model, at[0].batch, hooks, loss)
    if slope.hidden.requires_grad:
        begun = [tap for tap in taps if tap.leaf is not None]
        leaves = [tap.leaf for tap in begun if tap.leaf is not None]
        found = torch.autograd.grad(slope.hidden, leaves, slope.gradient, allow_unused=True)
        for tap, gradient in zip(begun, found, strict=True):
            tap.keep(gradient)
    found_losses = losses.cpu().double()
    return [tap.result(found_losses) for tap in taps]


def _unmoved(model: Any, at: Sequence[SiteBatch], loss: Loss) -> list[BatchGradients]:
    seen: dict[int, Tensor] = {}

    def see(number: int, visited: Visited) -> Tensor:
        seen[number] = at[number].counted(visited.value)
        return visited.value

    hooks = _visiting_all(at, [partial(see, number) for number in range(len(at))])
    losses = batch_losses(model, at[0].batch, hooks, loss).cpu().double()
    acts = [seen[number] for number in range(len(at))]
    return [BatchGradients(one, torch.zeros_like(one), losses) for one in acts]


@contextmanager
def _visiting_all(at: Sequence[SiteBatch], visits: Sequence[Visit]) -> Iterator[None]:
    with ExitStack() as stack:
        for one, visit in zip(at, visits, strict=True):
            stack.enter_context(visiting(one.site, visit))
        yield
