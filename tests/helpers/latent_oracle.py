"""fp64 truths for latent scores, every latent of every token materialised."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from deltalens.engine.latent.gates import LatentGate

KINDS = ("relu", "threshold", "gated", "topk", "groupmax", "rescaled topk", "rescaled relu")


@dataclass(frozen=True)
class LatentCase:
    """Inputs of one call, with the kind of encoder written out as its library would."""

    kind: str
    inputs: Tensor
    grads: Tensor
    W_dec: Tensor
    W_enc: Tensor
    bias: Tensor
    other: Tensor  # thresholds, or gate biases
    magnitude: Tensor  # r_mag of a gated SAE
    k: int
    z_mean: Tensor
    weights: Tensor

    def arguments(self) -> dict[str, object]:
        return {
            "inputs": self.inputs,
            "grads": self.grads,
            "W_dec": self.W_dec,
            "W_enc": self.W_enc,
            "gate": self.gate(),
            "z_mean": self.z_mean,
            "weights": self.weights,
        }

    def gate(self) -> LatentGate:
        n, norms = len(self.W_dec), self.W_dec.double().norm(dim=1)
        k = self.k
        match self.kind:
            case "relu":
                return LatentGate(n, self.bias)
            case "threshold":
                return LatentGate(n, self.bias, cut=self.other.double() - self.bias.double())
            case "gated":
                return LatentGate(n, self.bias, self.magnitude.exp(), cut=-self.other)
            case "topk":
                return LatentGate(n, self.bias, keep=k)
            case "groupmax":
                return LatentGate(n, self.bias, groups=k, keep=1)
        out = torch.where(norms > 0, norms, 1.0).reciprocal()
        bias = self.bias.double() * norms
        return LatentGate(n, bias, norms, out=out, keep=k if "topk" in self.kind else None)

    def latents(self) -> Tensor:
        """z [tokens, n_latents] in fp64."""
        before = self.inputs.double() @ self.W_enc.double().T
        bias, other = self.bias.double(), self.other.double()
        if self.kind == "gated":
            strength = before * self.magnitude.exp().double() + bias
            return strength.relu() * (before + other > 0)
        u = before + bias
        if self.kind == "threshold":
            return u.relu() * (u > other)
        if self.kind.startswith("rescaled"):
            u = u * self.W_dec.double().norm(dim=1)
        if "topk" in self.kind:
            return u.relu() * ranked_first(u, self.k)
        if self.kind == "groupmax":
            grouped = u.unflatten(1, (self.k, -1))
            return (grouped.relu() * ranked_first(grouped, 1)).flatten(1)
        return u.relu()

    def written(self) -> Tensor:
        """γ·d_i times what one unit of z_i adds of d_i, [tokens, n_latents] in fp64."""
        x = self.grads.double() @ self.W_dec.double().T
        if self.kind.startswith("rescaled"):
            norms = self.W_dec.double().norm(dim=1)
            x = x / torch.where(norms > 0, norms, 1.0)
        return x

    def terms(self) -> Tensor:
        """−w_t (γ_t·d_i) (z_{t,i} − z̄_i), [tokens, n_latents]."""
        centred = self.latents() - self.z_mean.double()
        return -self.weights.double()[:, None] * self.written() * centred

    def scores(self, reduction: str = "sum") -> Tensor:
        terms = self.terms()
        if reduction == "max":
            return terms.amax(0)
        return {"sum": terms, "abs": terms.abs(), "positive": terms.clamp(min=0)}[reduction].sum(0)

    def sizes(self) -> Tensor:
        """Σ_t of the norms whose products' rounding makes up a term's error, [n_latents]."""
        norms = self.W_dec.double().norm(dim=1)
        read = self.inputs.double().norm(dim=1)[:, None] * self.W_enc.double().norm(dim=1)
        scale = torch.ones_like(norms)
        if self.kind == "gated":
            scale = self.magnitude.exp().double()
        if self.kind.startswith("rescaled"):
            scale = norms
        z = read * scale + self.bias.double().abs() * scale + self.z_mean.double().abs()
        written = self.written().abs() + self.grads.double().norm(dim=1)[:, None] * torch.where(
            scale == norms, torch.ones_like(norms), norms
        )
        return (self.weights.double().abs()[:, None] * written * z).sum(0)


def ranked_first(values: Tensor, k: int) -> Tensor:
    """Which are among the k largest of the last axis, equal ones by place."""
    order = values.argsort(dim=-1, descending=True, stable=True)[..., :k]
    return torch.zeros_like(values, dtype=torch.bool).scatter(-1, order, True)


def latent_case(
    kind: str,
    tokens: int,
    d_model: int,
    n_latents: int,
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    k: int | None = None,
) -> LatentCase:
    draw = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw)

    if k is None:
        k = max(d for d in range(1, max(2, min(n_latents // 3, 9))) if n_latents % d == 0)
    return LatentCase(
        kind,
        inputs=normal(tokens, d_model),
        grads=normal(tokens, d_model),
        W_dec=(normal(n_latents, d_model) / d_model**0.5).to(dtype),
        W_enc=(normal(n_latents, d_model) / d_model**0.5).to(dtype),
        bias=normal(n_latents) * 0.3,
        other=normal(n_latents).abs() * 0.5,
        magnitude=normal(n_latents) * 0.2,
        k=k,
        z_mean=normal(n_latents).abs() * 0.2,
        weights=normal(tokens) / tokens,
    )


def tied_case(kind: str, *, seed: int = 0) -> LatentCase:
    """Small integers everywhere, so that equal pre-activations abound and every sum is exact."""
    case = latent_case(kind, 37, 12, 96, seed=seed)

    def whole(values: Tensor) -> Tensor:
        return (values * 2).round()

    W_dec = whole(case.W_dec * 3)
    if kind.startswith("rescaled"):  # norms of 0, 2 and 4
        rows = torch.arange(96)
        W_dec = torch.nn.functional.one_hot(rows % 12, 12) * (rows % 3 * 2.0)[:, None]
    return replace(
        case,
        inputs=whole(case.inputs),
        W_enc=whole(case.W_enc * 2),
        W_dec=W_dec,
        bias=whole(case.bias),
        other=whole(case.other),
        magnitude=torch.zeros(96),
    )
