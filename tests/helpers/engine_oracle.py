"""An fp64 truth for engine tests that shares no code with the library."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from deltalens.engine.numerics.extension import cpu_extension
from deltalens.engine.token_rows import TokenRows

FORMS = ("token", "quadratic")
IMPLS = ("reference", "torch", *(["cpp"] if cpu_extension() else []))


@dataclass(frozen=True)
class Case:
    """Inputs of one call and their exact scores."""

    acts: Tensor
    grads: Tensor
    W_dec: Tensor
    baseline: Tensor
    weights: Tensor

    def arguments(self) -> dict[str, Tensor]:
        return {"baseline": self.baseline, "weights": self.weights}

    def rows(self) -> TokenRows:
        return TokenRows(self.acts, self.grads, self.baseline.double(), self.weights.double())

    def exact(self) -> np.ndarray:
        """Scores in extended precision, [n_latents]."""
        return self.terms().sum(1).astype(np.float64)

    def magnitude(self) -> np.ndarray:
        """Σ_t |w x y| [n_latents]: what errors are judged by, since scores cancel."""
        return np.abs(self.terms()).sum(1).astype(np.float64)

    def terms(self) -> np.ndarray:
        def wide(t: Tensor) -> np.ndarray:
            return t.double().numpy().astype(np.longdouble)

        rows = wide(self.W_dec)
        centred = wide(self.acts) - wide(self.baseline)
        # einsum without BLAS: longdouble products, one latent's terms per row.
        x = np.einsum("nd,td->nt", rows, wide(self.grads))
        y = np.einsum("nd,td->nt", rows, centred)
        return -(wide(self.weights) * x * y)

    def norm_product(self) -> np.ndarray:
        """Σ_t |w_t| ‖γ_t‖ ‖a_t − ā‖ · ‖d_i‖², [n_latents]."""
        norms = self.weights.double().abs() * self.grads.double().norm(dim=1)
        total = float(norms @ (self.acts.double() - self.baseline.double()).norm(dim=1))
        return total * self.W_dec.double().norm(dim=1).numpy() ** 2

    def plain_fp32(self, at_least: int = 1) -> np.ndarray:
        """Scores by the obvious fp32 code, [n_latents], from products of ``at_least`` rows each.

        MKL sums products of a few rows otherwise on some processors, and two to five times as
        exactly as the many of a study.
        """
        rows = _filled(self.W_dec.float(), at_least)
        x = _filled(self.grads.float(), at_least) @ rows.T
        y = _filled(self.acts.float() - self.baseline.float(), at_least) @ rows.T
        products = (x * y)[: len(self.grads), : len(self.W_dec)]
        return -(self.weights.float()[:, None] * products).sum(0).double().numpy()


def _filled(rows: Tensor, at_least: int) -> Tensor:
    """Zeros below."""
    return torch.cat([rows, rows.new_zeros(max(0, at_least - len(rows)), rows.shape[1])])


def random_case(
    tokens: int, d_model: int, n_latents: int, *, dtype: torch.dtype = torch.float32, seed: int = 0
) -> Case:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    return Case(
        acts=normal(tokens, d_model) + 3.0,
        grads=normal(tokens, d_model),
        W_dec=(normal(n_latents, d_model) / d_model**0.5).to(dtype),
        baseline=normal(d_model) + 3.0,
        weights=normal(tokens) / tokens,
    )


def brute_force_topk(exact: np.ndarray, k: int, *, largest: bool = True) -> np.ndarray:
    """Latents by score, then by index."""
    keys = -exact if largest else exact
    return np.lexsort((np.arange(len(exact)), keys))[:k]


class SlicedDecoder:
    """A decoder that is no tensor and remembers what was asked of it."""

    def __init__(self, W_dec: Tensor) -> None:
        self.n_latents, self.d_model = W_dec.shape
        self.dtype = W_dec.dtype
        self._W_dec = W_dec
        self.largest_slice = 0

    def rows(self, start: int, stop: int) -> Tensor:
        self.largest_slice = max(self.largest_slice, stop - start)
        return self._W_dec[start:stop].clone()


def cancelling_case(seed: int) -> Case:
    """Scores a millionth of their terms: every row comes with a nearly opposite twin."""
    case = random_case(400, 90, 3000, seed=seed)
    grads = torch.cat([case.grads, -case.grads * (1 + 1e-6)])
    return Case(
        acts=torch.cat([case.acts, case.acts]),
        grads=grads,
        W_dec=case.W_dec,
        baseline=case.baseline,
        weights=torch.cat([case.weights, case.weights]),
    )


def scaled_case(seed: int) -> Case:
    """Gradients near the smallest fp32 numbers, activations near the largest, rows of all sizes."""
    case = random_case(50, 90, 3000, seed=seed)
    sizes = torch.logspace(-12, 6, 3000)[torch.randperm(3000)]
    return Case(
        acts=case.acts * 1e30,
        grads=case.grads * 1e-38,
        W_dec=case.W_dec * sizes[:, None],
        baseline=case.baseline * 1e30,
        weights=case.weights,
    )


def near_tie_case(seed: int) -> Case:
    """Hundreds of rows whose scores differ in the last bits of fp32 around the k-th place."""
    case = random_case(60, 90, 3000, seed=seed)
    best = case.W_dec[int(brute_force_topk(case.exact(), 1)[0])].clone()
    nudges = 1 + 2.0**-22 * torch.arange(300)
    case.W_dec[torch.randperm(3000)[:300]] = best * nudges[:, None]
    return case
