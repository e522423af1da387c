"""The rules: values of a part as they are, with another slope."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _WithSlope(torch.autograd.Function):
    """``value``, which counts as ``slope`` · x, elementwise, or ``slope`` · (x − mean of x)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Tensor, slope: Tensor, centred: bool) -> Tensor:
        ctx.save_for_backward(slope)
        ctx.dtype, ctx.centred = x.dtype, centred
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        (slope,) = ctx.saved_tensors
        back = grads[0].to(slope.dtype) * slope
        if ctx.centred:
            back = back - back.mean(-1, keepdim=True)
        return back.to(ctx.dtype), None, None, None


class _Halved(torch.autograd.Function):
    """x, of whose gradient half comes back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0] / 2


def scaled(x: Tensor, value: Tensor, slope: Tensor, *, centred: bool) -> Tensor:
    """``value`` [..., n] with the slope of ``slope`` · x, or of ``slope`` · (x − its mean)."""
    found: Tensor = _WithSlope.apply(x, value.detach(), slope, centred)
    return found


def identity(x: Tensor, value: Tensor, at_zero: float) -> Tensor:
    """``value`` = φ(x) with the slope φ(x)/x; ``at_zero``: φ′(0), which that tends to."""
    wide = torch.promote_types(x.dtype, torch.float32)
    z, y = x.detach().to(wide), value.detach().to(wide)
    # Below this φ(z) loses digits in 16-bit arithmetic, and the limit is as near.
    small = z.abs() < 1e-4
    slope = torch.where(small, at_zero, y / torch.where(small, 1.0, z))
    found: Tensor = _WithSlope.apply(x, value.detach(), slope, False)
    return found


def halved(x: Tensor) -> Tensor:
    """x with half of its gradient: what a product of two factors gives each of them."""
    found: Tensor = _Halved.apply(x)
    return found
