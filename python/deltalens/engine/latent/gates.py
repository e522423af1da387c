"""When a latent opens and how far: every kind of encoder as a few numbers per latent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from deltalens.errors import InputError


class GateRows(NamedTuple):
    """Some latents of a gate, fp64 [n] each, and the mean that is taken from z."""

    latents: Tensor  # int64 [n]
    scale: Tensor
    bias: Tensor
    cut: Tensor
    mean: Tensor

    def part(self, rows: slice) -> GateRows:
        return GateRows(*(each[rows] for each in self))


@dataclass(frozen=True)
class LatentGate:
    """z_i = max(p_i, 0) where u_i > cut_i and p_i wins, 0 elsewhere; p_i = scale_i u_i + bias_i.

    u_i is the encoder row's product with the token, and z_i · out_i · d_i what latent i writes.
    With ``keep``, latents compete for every token in ``groups`` of consecutive ones: the ``keep``
    largest p of each group win, of equal ones those of smaller latents. Vectors are [n_latents];
    None stands for bias 0, scale 1, cut −∞ and out 1. Scales are not negative.

    Raises :class:`InputError` for values that cannot be that.
    """

    n_latents: int
    bias: Tensor | None = None
    scale: Tensor | None = None
    cut: Tensor | None = None
    out: Tensor | None = None
    groups: int = 1
    keep: int | None = None

    def __post_init__(self) -> None:
        for name in ("bias", "scale", "cut", "out"):
            vector = getattr(self, name)
            if vector is None:
                continue
            if vector.shape != (self.n_latents,) or not vector.is_floating_point():
                raise InputError(
                    f"{name} must be a floating-point tensor [n_latents] = [{self.n_latents}], "
                    f"got {vector.dtype} {list(vector.shape)}"
                )
            if bool(vector.isnan().any()) or (name != "cut" and not bool(vector.isfinite().all())):
                raise InputError(f"{name} holds NaN or infinity; get an intact copy of the SAE")
        if self.scale is not None and bool((self.scale < 0).any()):
            raise InputError(f"scale must not be negative, got {float(self.scale.min())}")
        if self.groups < 1 or self.n_latents % self.groups:
            raise InputError(f"{self.n_latents} latents do not divide into {self.groups} groups")
        if self.keep is not None and not 1 <= self.keep <= self.group_size:
            raise InputError(
                f"k must be 1 … {self.group_size}, the latents that compete, got {self.keep}"
            )

    @property
    def group_size(self) -> int:
        """How many latents compete with each other."""
        return self.n_latents // self.groups

    @property
    def competes(self) -> bool:
        """Whether a latent's being open depends on other latents."""
        return self.keep is not None and self.keep < self.group_size

    def rows(
        self, latents: slice | Tensor, device: torch.device, mean: Tensor | None = None
    ) -> GateRows:
        """The numbers of some latents on ``device``; mean [n_latents], None for 0."""
        if isinstance(latents, slice):
            latents = torch.arange(*latents.indices(self.n_latents))
        chosen = latents

        def vector(values: Tensor | None, default: float) -> Tensor:
            if values is None:
                return torch.full(chosen.shape, default, dtype=torch.float64, device=device)
            return values[chosen.to(values.device)].to(device, torch.float64)

        return GateRows(
            chosen.to(device),
            vector(self.scale, 1.0),
            vector(self.bias, 0.0),
            vector(self.cut, -torch.inf),
            vector(mean, 0.0),
        )

    def outputs(self, latents: slice | Tensor, device: torch.device) -> Tensor:
        """out of some latents, fp64 [n] or for 1 [], on ``device``."""
        if self.out is None:
            return torch.ones((), dtype=torch.float64, device=device)
        which = latents if isinstance(latents, slice) else latents.to(self.out.device)
        return self.out[which].to(device, torch.float64)
