"""Norms as linear maps: what a norm multiplies with, found by asking it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from deltalens.errors import InputError
from deltalens.lm.gradients.relp.rules import scaled

_PROBE = 1024.0  # so large that what a norm adds to a variance is lost beside it
_TOLERANCE = {torch.float64: 1e-5, torch.float32: 1e-4, torch.float16: 0.02, torch.bfloat16: 0.05}


@dataclass(frozen=True)
class Norm:
    """y = gain · (x − mean of x, where ``centred``) / scale + bias; gain and bias [n]."""

    gain: Tensor
    bias: Tensor
    centred: bool

    def fixed(self, x: Tensor, value: Tensor, name: str) -> Tensor:
        """The norm's ``value`` at x [..., n], with the slope of a fixed scale.

        Raises :class:`InputError` where the value is not what a norm gives.
        """
        wide = torch.promote_types(x.dtype, torch.float32)
        with torch.no_grad():
            z, y = x.to(wide), value.to(wide) - self.bias.to(wide)
            gain = self.gain.to(wide)
            u = gain * ((z - z.mean(-1, keepdim=True)) if self.centred else z)
            size = (u * u).sum(-1, keepdim=True)
            inverse = torch.where(size > 0, (u * y).sum(-1, keepdim=True) / size, 0.0)
            off = (y - inverse * u).norm(dim=-1) > _TOLERANCE[x.dtype] * y.norm(dim=-1)
            if bool(off.any()):
                raise InputError(
                    f"{name} is called a norm and does more than scale its input; relp has no rule "
                    "for it: use gradients='plain' or 'integrated'"
                )
        return scaled(x, value, gain * inverse, centred=self.centred)


def is_norm(module: nn.Module) -> bool:
    """Whether a module scales its one input, as its class's name says."""
    named = "norm" in type(module).__name__.lower()
    return named and not any(True for _ in module.children())


@torch.no_grad()
def norm_of(module: Any, width: int, like: Tensor) -> Norm:
    """What the module does to ``width`` numbers: its answers to ±1024 with mean 0, and to 1024.

    ``like``: a tensor of the dtype and on the device that it is used with. A norm's own weights
    are not looked for: some multiply with them and some with one more than them.
    """
    signs = torch.ones(width, dtype=torch.float64)
    signs[1::2] = -1.0
    if width % 2:  # so that the mean is 0 and the mean square 1
        signs = signs * torch.linspace(1, 2, width, dtype=torch.float64)
        signs = signs - signs.mean()
    size = signs.square().mean().sqrt()
    up, down, same = (
        _answer(module, _PROBE * probe, like) for probe in (signs, -signs, torch.ones_like(signs))
    )
    bias = (up + down) / 2
    gain = (up - down) / 2 * (size / signs).to(up.device)
    centred = bool((same - bias).norm() <= 1e-2 * gain.norm())
    return Norm(gain, bias, centred)


def _answer(module: Any, probe: Tensor, like: Tensor) -> Tensor:
    """fp64 [n]. In fp32 if the module takes that, so that 16-bit rounding is not the gain's."""
    for dtype in (torch.promote_types(like.dtype, torch.float32), like.dtype):
        try:
            found = module.forward(probe.to(like.device, dtype)[None, None])
        except RuntimeError:
            if dtype == like.dtype:
                raise
            continue
        return found[0, 0].double()
    raise AssertionError("one of the dtypes is the module's own")
