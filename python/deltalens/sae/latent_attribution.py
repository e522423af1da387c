"""Encoder-gated attribution of activations as they come from a model."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from deltalens.engine.decoder import Decoder, HasDecoder, as_decoder
from deltalens.engine.latent.attribution import gated_attribution, gated_attribution_topk
from deltalens.engine.topk.ranking import TopLatents
from deltalens.errors import InputError
from deltalens.sae.encoding import Encoding
from deltalens.sae.gate import encoder_inputs, latent_gate


def latent_attribution(
    acts: Tensor,
    grads: Tensor,
    W_dec: Tensor | Decoder | HasDecoder,
    encoding: Encoding,
    *,
    z_mean: Tensor | None = None,
    weights: Tensor | None = None,
    impl: str = "auto",
    reduction: str = "sum",
) -> Tensor:
    """First-order effect of setting every latent to its mean, float32 [n_latents].

    ``scores[i] = -sum_t weights[t] * (grads[t] @ r[t, i]) * (z[t, i] - z_mean[i])``

    with z the SAE's own activations and r[t, i] what a unit of latent i writes at token t: d_i,
    over the encoding's scale, with the token's normalisation undone and, if u is rescaled by the
    decoder norm, over ‖d_i‖. acts [tokens, d_model] are what the SAE encodes, as captured; grads
    the gradients where it writes; z_mean: the latents' mean over a broad text [n_latents], as
    ``Baseline.latent_mean`` holds it, None for 0; the rest as in
    :func:`deltalens.attribution`. Never tokens × n_latents in memory. Raises :class:`InputError`
    naming what cannot be used.
    """
    given = _given(acts, grads, W_dec, encoding, weights)
    return gated_attribution(**given, z_mean=z_mean, impl=impl, reduction=reduction)


def latent_attribution_topk(
    acts: Tensor,
    grads: Tensor,
    W_dec: Tensor | Decoder | HasDecoder,
    encoding: Encoding,
    k: int = 100,
    *,
    largest: bool = True,
    z_mean: Tensor | None = None,
    weights: Tensor | None = None,
    impl: str = "auto",
    reduction: str = "sum",
) -> TopLatents:
    """The k latents with the largest (or most negative) :func:`latent_attribution`, rescored in
    fp64.

    ``certified``: the set is proven to be that of exact arithmetic on x̃ as the encoder has it, in
    fp32. A latent whose being open rounding may decide counts with both possibilities.
    """
    given = _given(acts, grads, W_dec, encoding, weights)
    return gated_attribution_topk(
        **given, k=k, largest=largest, z_mean=z_mean, impl=impl, reduction=reduction
    )


def _given(
    acts: Tensor,
    grads: Tensor,
    W_dec: Tensor | Decoder | HasDecoder,
    encoding: Encoding,
    weights: Tensor | None,
) -> dict[str, Any]:
    decoder = as_decoder(W_dec)
    inputs, factors = encoder_inputs(encoding, acts)
    if weights is None:
        weights = torch.full((len(acts),), 1.0 / len(acts), dtype=torch.float64)
    if weights.shape != factors.shape or not weights.is_floating_point():
        raise InputError(
            f"weights must be a floating-point tensor [tokens] = [{len(acts)}], got "
            f"{weights.dtype} {list(weights.shape)}"
        )
    return {
        "inputs": inputs,
        "grads": grads,
        "W_dec": decoder,
        "W_enc": encoding.W_enc,
        "gate": latent_gate(encoding, decoder),
        "weights": weights.to(factors) * factors,
    }
