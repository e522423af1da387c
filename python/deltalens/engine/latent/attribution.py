"""Encoder-gated attribution: the gradient's product with d_i times the latent's own activation."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from deltalens.engine.checks import (
    check_finite,
    check_k,
    check_token_rows,
    check_width,
)
from deltalens.engine.cost.planner import tile_rows
from deltalens.engine.decoder import Decoder, TensorDecoder, as_decoder
from deltalens.engine.latent.competition import Thresholds, token_thresholds
from deltalens.engine.latent.gates import LatentGate
from deltalens.engine.latent.rows import LatentSource
from deltalens.engine.latent.scan import LatentProblem, latent_scores, top_latent_scores
from deltalens.engine.latent.scorers import prepared_by
from deltalens.engine.reductions import check_reduction
from deltalens.engine.token_rows import TokenRows
from deltalens.engine.topk.ranking import Ranking, TopLatents
from deltalens.engine.trust.implementations import choose_impl
from deltalens.errors import InputError


def gated_attribution(
    inputs: Tensor,
    grads: Tensor,
    W_dec: Tensor | Decoder,
    W_enc: Tensor | Decoder,
    gate: LatentGate,
    *,
    z_mean: Tensor | None = None,
    weights: Tensor | None = None,
    impl: str = "auto",
    reduction: str = "sum",
) -> Tensor:
    """Every latent's gated attribution, float32 [n_latents] on the device of ``inputs``.

    ``scores[i] = -sum_t weights[t] * out[i] * (grads[t] @ W_dec[i]) * (z[t, i] - z_mean[i])``

    inputs: x̃ [tokens, d_model], what W_enc [n_latents, d_model] multiplies; z and out: see
    :class:`LatentGate`; z_mean: [n_latents] or None for 0; the rest as in
    :func:`deltalens.attribution`. Memory beyond the inputs is one tile, one group of the tokens
    and, where latents compete, one number per token and group of latents and a copy of the tokens
    whose winners fp32 cannot tell, which are computed in fp64.

    Raises :class:`InputError` naming the argument that cannot be used.
    """
    problem = gated_problem(
        inputs,
        grads,
        W_dec,
        W_enc,
        gate,
        z_mean=z_mean,
        weights=weights,
        impl=impl,
        reduction=reduction,
    )
    return latent_scores(problem)


def gated_attribution_topk(
    inputs: Tensor,
    grads: Tensor,
    W_dec: Tensor | Decoder,
    W_enc: Tensor | Decoder,
    gate: LatentGate,
    k: int = 100,
    *,
    largest: bool = True,
    absolute: bool = False,
    z_mean: Tensor | None = None,
    weights: Tensor | None = None,
    impl: str = "auto",
    reduction: str = "sum",
) -> TopLatents:
    """The k latents with the largest (or most negative, or largest absolute) scores.

    Latents whose interval reaches the k-th place are rescored in fp64. Where rounding may decide
    whether a latent is open at a token, the interval holds both, so ``certified`` is about exact
    arithmetic; two latents that tie for a token leave it False if that matters.
    """
    check_k(k, as_decoder(W_dec).n_latents)
    problem = gated_problem(
        inputs,
        grads,
        W_dec,
        W_enc,
        gate,
        z_mean=z_mean,
        weights=weights,
        impl=impl,
        reduction=reduction,
    )
    return top_latent_scores(problem, k, Ranking(largest=largest, absolute=absolute))


def gated_problem(
    inputs: Tensor,
    grads: Tensor,
    W_dec: Tensor | Decoder,
    W_enc: Tensor | Decoder,
    gate: LatentGate,
    *,
    z_mean: Tensor | None = None,
    weights: Tensor | None = None,
    impl: str = "auto",
    reduction: str = "sum",
    thresholds: Thresholds | None = None,
) -> LatentProblem:
    """The same, to be asked several times; ``thresholds`` of the inputs if they are known."""
    check_token_rows(inputs, grads, None, weights)
    check_reduction(reduction)
    dec, enc = as_decoder(W_dec), as_decoder(W_enc)
    check_width(dec, inputs.shape[1])
    _check_dictionary(dec, enc, gate, z_mean)
    tokens, d_model = inputs.shape
    device = inputs.device
    if weights is None:
        weights = torch.full((tokens,), 1.0 / tokens, dtype=torch.float64)
    rows = TokenRows(
        inputs,
        grads,
        torch.zeros(d_model, dtype=torch.float64, device=device),
        weights.to(device, torch.float64),
    )
    impl = choose_impl(impl, device)
    if thresholds is None:
        thresholds = token_thresholds(inputs, enc, gate, impl)
    resident = all(
        isinstance(each, TensorDecoder) and each.rows(0, 0).device == device for each in (dec, enc)
    )
    return LatentProblem(
        dec,
        enc,
        LatentSource(rows, gate, thresholds, reduction),
        z_mean,
        tile_rows(d_model, impl, resident=resident, tokens=tokens),
        impl,
        partial(prepared_by, dtypes={dec.dtype, enc.dtype}),
    )


def _check_dictionary(dec: Decoder, enc: Decoder, gate: LatentGate, z_mean: Tensor | None) -> None:
    if enc.d_model != dec.d_model:
        raise InputError(
            f"W_enc has d_model {enc.d_model} but W_dec has {dec.d_model}; latent scores need an "
            "SAE that reads and writes the same width"
        )
    for name, found in (("W_enc", enc.n_latents), ("the gate", gate.n_latents)):
        if found != dec.n_latents:
            raise InputError(f"{name} has {found} latents but W_dec has {dec.n_latents}")
    if z_mean is None:
        return
    if z_mean.shape != (dec.n_latents,) or not z_mean.is_floating_point():
        raise InputError(
            f"z_mean must be a floating-point tensor [{dec.n_latents}], got {z_mean.dtype} "
            f"{list(z_mean.shape)}"
        )
    check_finite("z_mean", z_mean)
