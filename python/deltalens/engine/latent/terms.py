"""A latent's terms x_t·(z_t − z̄) over tokens, reduced, with a bound on what rounding did to them.

With |fl(x) − x| ≤ e_x, |fl(u) − u| ≤ e_u and p = scale·u + bias off by at most e_p, a term is off
by at most (|x| + e_x)·e_z + |z − z̄|·e_x. An open latent's z is off by e_p and a closed one's by
nothing, unless rounding may have decided which it is (u within e_u of the cut, p within e_p of the
token's threshold): then by all of max(p, 0) + e_p.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from deltalens.engine.latent.gates import GateRows
from deltalens.engine.numerics.precision import SMALLEST_NORMAL, UNIT_ROUNDOFF
from deltalens.engine.reductions import reduce_terms

SLACK = 1 + 2.0**-16  # of the fp32 arithmetic on bounds
# What numbers below the smallest normal one can take from a product of up to 2¹⁶ of them is less
# than the product of these.
FLUSHED_SLOPE, FLUSHED_NORM = 2.0**-78, 2.0**-30


class Margins(NamedTuple):
    """e_x and e_u of a block, each the product of a slope per latent and a norm per token."""

    x_slopes: Tensor  # [n]
    x_norms: Tensor  # [tokens]
    u_slopes: Tensor
    u_norms: Tensor
    rounding: float  # relative, of multiplying x and z − z̄ and adding up terms

    def of_x(self) -> Tensor:
        return self.x_slopes[:, None] * self.x_norms

    def of_u(self) -> Tensor:
        return self.u_slopes[:, None] * self.u_norms


class Threshold(NamedTuple):
    """What p must exceed to win: [1 or n, tokens], and the last latent that wins with as much."""

    value: Tensor
    last: Tensor | None = None


def slopes(norms: Tensor, relative: float) -> Tensor:
    """Of rows of fp64 ``norms`` [n], for products that are off by ``relative``·‖row‖·‖token‖."""
    return (relative * norms + FLUSHED_SLOPE * (1 + norms)) * SLACK


def reduced_terms(
    x: Tensor,
    u: Tensor,
    gate: GateRows,
    threshold: Threshold | None,
    margins: Margins | None,
    reduction: str,
) -> Tensor:
    """fp64 [3, n]: reduced terms and, where ``margins`` are given, bounds on their errors: of
    rounding, and of opening latents that are closed or closing open ones.

    x, u: fp32 or fp64 [n, tokens], which may be overwritten.
    """
    _, scale, bias, cut, mean = (each[:, None].to(u.dtype) for each in gate)
    p = torch.addcmul(bias, u, scale)
    error_p = None
    if margins is not None:
        error_p = _pre_activation_error(p, scale, bias, margins)
    passes = (u > cut) & _wins(p, gate, threshold, error_p)
    z = p.clamp(min=0).mul_(passes)
    errors = torch.zeros(2, len(x), dtype=torch.float64, device=x.device)
    if margins is not None and error_p is not None:
        unsure = _unsure(u, p, cut, threshold, margins, error_p)
        error_z = torch.where((passes | unsure) & (p > -error_p), error_p, 0.0)
        errors[0] = _term_errors(x, z, mean, error_z, margins)
        whole = p.clamp_(min=0).mul_(unsure).mul_(x.abs() + margins.of_x())
        errors[1] = whole.sum(1, dtype=torch.float64) * SLACK
    return torch.cat([reduce_terms(z.sub_(mean).mul_(x), reduction)[None], errors])


def activations(u: Tensor, gate: GateRows, threshold: Threshold | None, error_u: Tensor) -> Tensor:
    """z [n, tokens] of fp64 products u, each off by at most ``error_u`` [n, tokens]."""
    _, scale, bias, cut, _ = (each[:, None] for each in gate)
    p = torch.addcmul(bias, u, scale)
    error_p = scale * error_u + _rounding(p, bias)
    return p.clamp(min=0) * ((u > cut) & _wins(p, gate, threshold, error_p))


def _wins(p: Tensor, gate: GateRows, threshold: Threshold | None, error_p: Tensor | None) -> Tensor:
    if threshold is None:
        return torch.ones_like(p, dtype=torch.bool)
    if threshold.last is None or error_p is None:
        return p > threshold.value
    above = p - threshold.value
    return (above > error_p) | ((above >= -error_p) & (gate.latents[:, None] <= threshold.last))


def _rounding(p: Tensor, bias: Tensor) -> Tensor:
    """Of scale and bias to the dtype of p, their product with u and the sum."""
    return 8 * UNIT_ROUNDOFF[p.dtype] * (p.abs() + bias.abs())


def _pre_activation_error(p: Tensor, scale: Tensor, bias: Tensor, margins: Margins) -> Tensor:
    return (margins.of_u() * scale).add_(_rounding(p, bias)).mul_(SLACK)


def _unsure(
    u: Tensor,
    p: Tensor,
    cut: Tensor,
    threshold: Threshold | None,
    margins: Margins,
    error_p: Tensor,
) -> Tensor:
    rounded = 2 * UNIT_ROUNDOFF[u.dtype] * cut.abs().nan_to_num(posinf=0.0)
    unsure = (u - cut).abs() <= (margins.of_u() + rounded) * SLACK
    if threshold is not None:
        unsure |= (p - threshold.value).abs() <= error_p
    return unsure


def _term_errors(x: Tensor, z: Tensor, mean: Tensor, error_z: Tensor, margins: Margins) -> Tensor:
    size_x, error_x = x.abs(), margins.of_x()
    error = (z - mean).abs_().mul_(error_x)
    error += (size_x + error_x).mul_(error_z)
    error += size_x.mul_(z + mean.abs()).mul_(margins.rounding)
    flushed = x.shape[1] * SMALLEST_NORMAL[torch.float32]
    return error.sum(1, dtype=torch.float64) * SLACK + flushed
