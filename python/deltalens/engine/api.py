"""The tensor-level functions: rows and a decoder in, scores or the top-k out."""

from __future__ import annotations

import torch
from torch import Tensor

from deltalens.engine.checks import check_k, check_token_rows, check_width
from deltalens.engine.decoder import Decoder, TensorDecoder, as_decoder
from deltalens.engine.moment import CrossMoment
from deltalens.engine.planner import plan
from deltalens.engine.problem import Problem, moment_problem, token_problem
from deltalens.engine.ranking import Ranking, TopLatents
from deltalens.engine.scan import full_scores, top_latents


def attribution(
    acts: Tensor,
    grads: Tensor,
    W_dec: Tensor | Decoder,
    *,
    baseline: Tensor | None = None,
    weights: Tensor | None = None,
    form: str = "auto",
    impl: str = "auto",
    normalize: bool = False,
) -> Tensor:
    """First-order effect of mean-ablating every latent, float32 [n_latents] on the device of acts.

    ``scores[i] = -sum_t weights[t] * (grads[t] @ W_dec[i]) * ((acts[t] - baseline) @ W_dec[i])``

    acts, grads: [tokens, d_model], any floating dtype; W_dec: [n_latents, d_model] in float32,
    bfloat16 or float16 on any device, or a :class:`Decoder`; baseline: [d_model] or None for 0;
    weights: [tokens] or None for 1/tokens; form: "token", "quadratic" or "auto" (the cheaper one,
    see :func:`plan`); impl: "reference", "torch", "cpp" (the compiled kernels, on CPUs),
    "triton" (the GPU kernels) or "auto";
    normalize: divide by ‖d_i‖².

    Products are accumulated in fp32 blocks, sums in fp64, TF32 never. A decoder row with NaN or
    infinity scores NaN and is warned about. Raises :class:`InputError` (a ValueError) naming the
    argument that cannot be used. Source of the formula: "Debugging misaligned completions with
    sparse-autoencoder latent attribution" (OpenAI, December 2025).
    """
    problem = _problem(acts, grads, W_dec, baseline, weights, form, impl, k=None)
    return full_scores(problem, normalize=normalize)[0]


def attribution_topk(
    acts: Tensor,
    grads: Tensor,
    W_dec: Tensor | Decoder,
    k: int = 100,
    *,
    largest: bool = True,
    baseline: Tensor | None = None,
    weights: Tensor | None = None,
    form: str = "auto",
    impl: str = "auto",
    normalize: bool = False,
) -> TopLatents:
    """The k latents with the largest (or most negative) attribution, exactly.

    Arguments as in :func:`attribution`. Latents whose interval reaches the k-th place are rescored
    in fp64, so the result is the top-k of the exact scores; ``certified`` says that this is
    proven. Memory beyond the inputs is one tile, d_model² or one fp32 copy of the rows, and O(k).
    Raises :class:`InputError` for k < 1 or k > n_latents, and as :func:`attribution` does.
    """
    check_k(k, as_decoder(W_dec).n_latents)
    problem = _problem(acts, grads, W_dec, baseline, weights, form, impl, k=k)
    return top_latents(problem, k, Ranking(largest=largest), normalize=normalize)[0]


def _problem(
    acts: Tensor,
    grads: Tensor,
    W_dec: Tensor | Decoder,
    baseline: Tensor | None,
    weights: Tensor | None,
    form: str,
    impl: str,
    *,
    k: int | None,
) -> Problem:
    check_token_rows(acts, grads, baseline, weights)
    decoder = as_decoder(W_dec)
    tokens, d_model = acts.shape
    check_width(decoder, d_model)
    chosen = plan(
        tokens,
        decoder.n_latents,
        d_model,
        k=k,
        dtype=decoder.dtype,
        device=acts.device,
        form=form,
        impl=impl,
        resident=decoder.rows(0, 0).device == acts.device and isinstance(decoder, TensorDecoder),
    )
    if chosen.form == "quadratic":
        moment = CrossMoment(d_model, acts.device)
        moment.add(acts, grads, baseline=baseline, weights=weights)
        return moment_problem([moment], decoder, chosen.impl)
    if baseline is None:
        baseline = torch.zeros(d_model)
    if weights is None:
        weights = torch.full((tokens,), 1.0 / tokens, dtype=torch.float64)
    device = acts.device
    return token_problem(acts, grads, decoder, baseline.to(device), weights.to(device), chosen.impl)
