"""The definition, in fp64, with both products materialised: the truth every kernel is held to."""

from __future__ import annotations

from torch import Tensor


def token_terms(
    acts: Tensor, grads: Tensor, W_dec: Tensor, baseline: Tensor, weights: Tensor
) -> Tensor:
    """−weights[t] · (grads[t] · d_i) · ((acts[t] − baseline) · d_i), fp64 [n_latents, tokens].

    acts, grads [tokens, d_model]; W_dec [n_latents, d_model]; baseline [d_model];
    weights [tokens].
    """
    rows = W_dec.double()
    x = rows @ grads.double().T  # [n_latents, tokens]
    y = rows @ (acts.double() - baseline.double()).T  # [n_latents, tokens]
    return x.mul_(y).mul_(-weights.double())


def quadratic_scores(moment: Tensor, W_dec: Tensor) -> Tensor:
    """d_iᵀ S d_i for S = ``moment`` [d_model, d_model], fp64 [n_latents]."""
    rows = W_dec.double()
    return ((rows @ moment.double()) * rows).sum(1)
