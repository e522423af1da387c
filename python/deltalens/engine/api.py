"""The tensor-level functions: rows and a decoder in, scores or the top-k out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from deltalens.engine.checks import check_k, check_segments, check_token_rows, check_width
from deltalens.engine.cost.planner import Plan, plan
from deltalens.engine.decoder import Decoder, HasDecoder, TensorDecoder, as_decoder
from deltalens.engine.moment import CrossMoment
from deltalens.engine.problem import Problem, moment_problem, token_problem
from deltalens.engine.reductions import check_reduction
from deltalens.engine.scan import full_scores, segment_scores, top_latents
from deltalens.engine.topk.ranking import Ranking, TopLatents
from deltalens.engine.trust.rates import measure_once
from deltalens.errors import InputError

_WORTH_MEASURING = 5.0  # seconds that a call is expected to take; measuring rates takes about one


def attribution(
    acts: Tensor,
    grads: Tensor,
    W_dec: Tensor | Decoder | HasDecoder,
    *,
    baseline: Tensor | None = None,
    weights: Tensor | None = None,
    form: str = "auto",
    impl: str = "auto",
    normalize: bool = False,
    reduction: str = "sum",
) -> Tensor:
    """First-order effect of mean-ablating every latent, float32 [n_latents] on the device of acts.

    ``scores[i] = -sum_t weights[t] * (grads[t] @ W_dec[i]) * ((acts[t] - baseline) @ W_dec[i])``

    acts, grads: [tokens, d_model], any floating dtype; W_dec: [n_latents, d_model] in float32,
    bfloat16 or float16 on any device, a :class:`Decoder`, or an SAE that has one as ``W_dec``;
    baseline: [d_model] or None for 0;
    weights: [tokens] or None for 1/tokens; form: "token", "quadratic" or "auto" (the cheaper one,
    see :func:`plan`); impl: "reference", "torch", "cpp" (the compiled kernels, on CPUs),
    "triton" (the GPU kernels) or "auto";
    normalize: divide by ‖d_i‖²; reduction: "sum" over the tokens' terms as above, "abs" (the sum of
    their magnitudes), "positive" (of their positive parts) or "max" (the largest, weight included).
    All but the sum need the token form.

    Products are accumulated in fp32 blocks, sums in fp64, TF32 never. A decoder row with NaN or
    infinity scores NaN and is warned about. Raises :class:`InputError` (a ValueError) naming the
    argument that cannot be used. Source of the formula: "Debugging misaligned completions with
    sparse-autoencoder latent attribution" (OpenAI, December 2025).
    """
    problem = _problem(acts, grads, W_dec, baseline, weights, form, impl, reduction, k=None)
    return full_scores(problem, normalize=normalize)[0]


def attribution_topk(
    acts: Tensor,
    grads: Tensor,
    W_dec: Tensor | Decoder | HasDecoder,
    k: int = 100,
    *,
    largest: bool = True,
    baseline: Tensor | None = None,
    weights: Tensor | None = None,
    form: str = "auto",
    impl: str = "auto",
    normalize: bool = False,
    reduction: str = "sum",
) -> TopLatents:
    """The k latents with the largest (or most negative) attribution, exactly.

    Arguments as in :func:`attribution`. Latents whose interval reaches the k-th place are rescored
    in fp64, so the result is the top-k of the exact scores; ``certified`` says that this is
    proven. Memory beyond the inputs is one tile, d_model² or one group of the rows, and O(k).
    Raises :class:`InputError` for k < 1 or k > n_latents, and as :func:`attribution` does.
    """
    check_k(k, as_decoder(W_dec).n_latents)
    problem = _problem(acts, grads, W_dec, baseline, weights, form, impl, reduction, k=k)
    return top_latents(problem, k, Ranking(largest=largest), normalize=normalize)[0]


class AttributionStatistics(NamedTuple):
    """float32 [n_latents] each, over segments of tokens."""

    mean: Tensor
    stderr: Tensor  # sample standard deviation / sqrt(segments); NaN for a single segment


def attribution_statistics(
    acts: Tensor,
    grads: Tensor,
    W_dec: Tensor | Decoder | HasDecoder,
    segments: Tensor,
    *,
    baseline: Tensor | None = None,
    weights: Tensor | None = None,
    impl: str = "auto",
    normalize: bool = False,
) -> AttributionStatistics:
    """Mean and standard error over segments (pairs) of every latent's attribution, in one pass.

    segments: integer offsets [segments + 1] into the tokens, rising from 0 to their number;
    weights: [tokens], None for 1/length of each token's segment, so that a segment's sum is its
    mean over tokens. Other arguments as in :func:`attribution`; the form is the token form. The
    variance is that of sums within segments, updated as they end (B. P. Welford, 1962).

    Raises :class:`InputError` as :func:`attribution` does, and for offsets that do not rise so.
    """
    check_token_rows(acts, grads, baseline, weights)
    decoder = as_decoder(W_dec)
    check_width(decoder, acts.shape[1])
    offsets = check_segments(segments, acts.shape[0])
    if weights is None:
        lengths = torch.tensor(offsets).diff()
        weights = lengths.double().reciprocal().repeat_interleave(lengths)
    chosen = _plan(acts, decoder, "token", impl, k=None)
    problem = _token_problem(acts, grads, decoder, baseline, weights, chosen.impl, "sum", offsets)
    mean, spread, count = segment_scores(problem, normalize=normalize)
    stderr = (
        (spread / (count - 1) / count).sqrt() if count > 1 else torch.full_like(mean, torch.nan)
    )
    return AttributionStatistics(mean.float(), stderr.float())


def _problem(
    acts: Tensor,
    grads: Tensor,
    W_dec: Tensor | Decoder | HasDecoder,
    baseline: Tensor | None,
    weights: Tensor | None,
    form: str,
    impl: str,
    reduction: str,
    *,
    k: int | None,
) -> Problem:
    check_token_rows(acts, grads, baseline, weights)
    check_reduction(reduction)
    decoder = as_decoder(W_dec)
    d_model = acts.shape[1]
    check_width(decoder, d_model)
    if reduction != "sum":
        if form == "quadratic":
            raise InputError(
                f"reduction={reduction!r} needs the token form, got form='quadratic': only the "
                "sum over tokens is a quadratic form"
            )
        form = "token" if form == "auto" else form
    chosen = _plan(acts, decoder, form, impl, k=k)
    long = chosen.cost.busy_seconds > _WORTH_MEASURING and not chosen.roofs.measured
    if long and measure_once(acts.device):
        chosen = _plan(acts, decoder, form, impl, k=k)
    if chosen.form == "quadratic":
        moment = CrossMoment(d_model, acts.device)
        moment.add(acts, grads, baseline=baseline, weights=weights)
        return moment_problem([moment], decoder, chosen.impl)
    return _token_problem(acts, grads, decoder, baseline, weights, chosen.impl, reduction)


def _plan(acts: Tensor, decoder: Decoder, form: str, impl: str, *, k: int | None) -> Plan:
    tokens, d_model = acts.shape
    return plan(
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


def _token_problem(
    acts: Tensor,
    grads: Tensor,
    decoder: Decoder,
    baseline: Tensor | None,
    weights: Tensor | None,
    impl: str,
    reduction: str,
    segments: Sequence[int] | None = None,
) -> Problem:
    tokens, d_model = acts.shape
    if baseline is None:
        baseline = torch.zeros(d_model)
    if weights is None:
        weights = torch.full((tokens,), 1.0 / tokens, dtype=torch.float64)
    baseline, weights = baseline.to(acts.device), weights.to(acts.device)
    return token_problem(
        acts, grads, decoder, baseline, weights, impl, reduction=reduction, segments=segments
    )
