"""What an encoder is given, checked."""

from __future__ import annotations

import torch
from torch import Tensor

from deltalens.errors import InputError
from deltalens.sae.encoding import Encoding, GroupMax, ReLU, Threshold, TopK


def check_acts(acts: Tensor, d_in: int) -> None:
    if acts.ndim != 2 or acts.shape[1] != d_in or not acts.is_floating_point():
        raise InputError(
            f"acts must be floating-point [tokens, {d_in}], the SAE's input width, got "
            f"{acts.dtype} {list(acts.shape)}"
        )
    if not len(acts):
        raise InputError(f"acts are empty, got [0, {d_in}]; give at least one token")
    bad = acts.numel() - int(acts.isfinite().sum())
    if bad:
        raise InputError(f"{bad} of {acts.numel()} values of acts are NaN or infinite")


def checked_latents(latents: Tensor | list[int], n_latents: int) -> Tensor:
    chosen = torch.as_tensor(latents)
    if chosen.ndim != 1 or not len(chosen) or chosen.is_floating_point():
        raise InputError(f"latents must be a list of indices, got {list(chosen.shape)}")
    outside = chosen[(chosen < 0) | (chosen >= n_latents)]
    if len(outside):
        raise InputError(f"latent {int(outside[0])} is outside 0 … {n_latents - 1}")
    return chosen.to(torch.int64)


def check_encoding(encoding: Encoding, n_latents: int, d_out: int) -> None:
    if encoding.W_enc.n_latents != n_latents:
        raise InputError(
            f"the encoder has {encoding.W_enc.n_latents} latents but the decoder {n_latents}"
        )
    d_in = encoding.W_enc.d_model
    expected = {"b_enc": [n_latents], "b_dec": [d_out], "W_skip": [d_out, d_in]}
    shapes = {name: getattr(encoding, name) for name in expected}
    activation = encoding.activation
    for name in ("threshold", "scale", "bias", "gate_bias"):
        if hasattr(activation, name):
            shapes[name], expected[name] = getattr(activation, name), [n_latents]
    for name, tensor in shapes.items():
        if tensor is not None and list(tensor.shape) != expected[name]:
            raise InputError(f"{name} must be {expected[name]}, got {list(tensor.shape)}")
    if encoding.subtract_b_dec and d_in != d_out:
        raise InputError(
            f"b_dec of width {d_out} cannot be subtracted from an input of width {d_in}"
        )
    if isinstance(activation, TopK | GroupMax) and not 1 <= activation.k <= n_latents:
        raise InputError(f"k must be 1 … {n_latents}, the number of latents, got {activation.k}")
    if isinstance(activation, GroupMax) and n_latents % activation.k:
        raise InputError(f"{n_latents} latents do not divide into k = {activation.k} groups")
    if isinstance(activation, ReLU | TopK | GroupMax | Threshold) and encoding.b_enc is None:
        raise InputError(f"b_enc is missing, which a {type(activation).__name__} SAE needs")
