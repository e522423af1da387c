"""An encoding as the engine's latent scores want it: what the encoder reads, and its gate."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from deltalens.engine.decoder import Decoder, tiles
from deltalens.engine.latent.gates import LatentGate
from deltalens.engine.numerics.norms import row_norms
from deltalens.sae.encoder_checks import check_acts, check_encoding
from deltalens.sae.encoding import Encoding, Gated, GroupMax, Threshold, TopK
from deltalens.sae.normalise import normalise, own_acts

_NORM_ROWS = 4096


class EncoderInputs(NamedTuple):
    """x̃ fp32 [tokens, d_in], and what a token's latents are multiplied with in the reconstruction
    besides their decoder rows, fp64 [tokens]."""

    inputs: Tensor
    factors: Tensor


def encoder_inputs(encoding: Encoding, acts: Tensor) -> EncoderInputs:
    """x̃ as the encoder computes it from ``acts`` [tokens, d_in].

    Raises :class:`~deltalens.errors.InputError` for activations of another width, or NaN.
    """
    check_acts(acts, encoding.W_enc.d_model)
    normalised = normalise(own_acts(encoding, acts), encoding.normalization)
    x = normalised.x
    if encoding.input_scale != 1.0:
        x = x * encoding.input_scale
    if encoding.subtract_b_dec:
        x = x - encoding.b_dec.to(x)
    scale = encoding.input_scale if encoding.output_scale is None else encoding.output_scale
    factors = torch.full((len(x),), 1.0 / scale, dtype=torch.float64, device=x.device)
    if normalised.scale is not None:
        factors *= normalised.scale[:, 0]
    return EncoderInputs(x, factors)


def latent_gate(encoding: Encoding, W_dec: Decoder) -> LatentGate:
    """The gate of latents whose rows are ``encoding.W_enc`` and ``W_dec``; vectors in fp64.

    Before the activation is N·(u + b_enc), with N the decoder row's norm or 1. Reads the decoder
    once where that is the norm. Raises :class:`~deltalens.errors.InputError` when the tensors do
    not fit each other.
    """
    n_latents = W_dec.n_latents
    check_encoding(encoding, n_latents, W_dec.d_model)
    norms = torch.ones(n_latents, dtype=torch.float64)
    out = None
    if encoding.rescale_by_decoder_norm:
        norms = torch.cat([row_norms(rows).cpu() for _, rows in tiles(W_dec, _NORM_ROWS)])
        # Broken rows are the scan's to report.
        norms = norms.nan_to_num(0.0, 0.0)
        out = norms.where(norms > 0, 1.0).reciprocal()
    b_enc = torch.zeros(n_latents, dtype=torch.float64)
    if encoding.b_enc is not None:
        b_enc = encoding.b_enc.detach().cpu().double()
    scale, bias, cut = norms, norms * b_enc, None
    groups, keep = 1, None
    match encoding.activation:
        case Threshold(threshold):
            cut = _over(threshold, norms) - b_enc
        case Gated(magnitude, gated_bias, gate_bias):
            scale = norms * magnitude.detach().cpu().double()
            bias = scale * b_enc + gated_bias.detach().cpu().double()
            cut = _over(-gate_bias, norms) - b_enc
        case TopK(k):
            keep = k
        case GroupMax(k):
            groups, keep = k, 1
    return LatentGate(n_latents, bias, scale, cut, out, groups, keep)


def _over(limit: Tensor, norms: Tensor) -> Tensor:
    """What u + b_enc must exceed for N times it to exceed ``limit``; where N is 0, ±∞."""
    limit = limit.detach().cpu().double()
    never = torch.where(limit < 0, -torch.inf, torch.inf)
    return torch.where(norms > 0, limit / norms.where(norms > 0, 1.0), never)
