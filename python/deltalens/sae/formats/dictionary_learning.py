"""dictionary_learning: ``ae.pt`` (a state dict) beside ``config.json``.

Most of its classes keep ``decoder.weight`` [activation_dim, dict_size]; the JumpReLU and Matryoshka
ones keep ``W_dec`` [dict_size, activation_dim]. The name decides, so a square decoder is no riddle.
Encoding follows ``dict_class`` as in that library's ``from_pretrained``, which brings an
AutoEncoder's decoder to unit norm; the BatchTopK classes are encoded with by their threshold.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from deltalens.errors import InputError, quoted
from deltalens.sae.checkpoint import SAE
from deltalens.sae.encoding import Activation, Encoding, Gated, ReLU, Threshold, TopK
from deltalens.sae.files import open_tensors
from deltalens.sae.formats.layout import (
    count,
    first_number,
    read_config,
    require_files,
    resid_post,
    section,
    text,
    weight_file,
)
from deltalens.sae.matrices import EncoderRows, decoder_from, encoder_from, threshold, vector
from deltalens.sae.stored import StoredDecoder, TensorFile

NAME = "dictionary_learning"
WEIGHTS = "ae.pt"
CONFIG = "config.json"
LAYOUT = f"a directory with {WEIGHTS} and {CONFIG}"
PART = None

# What the module itself gives, whatever follows it in its block.
OTHER_SITES = {"mlp": "mlp.hook_out", "attention": "attn.hook_out"}


def detect(path: Path) -> bool:
    file = weight_file(path, WEIGHTS)
    return file.name == WEIGHTS and file.is_file()


def load(path: Path, part: str | None = None) -> SAE:
    file = weight_file(path, WEIGHTS)
    config_file = file.with_name(CONFIG)
    require_files(path, NAME, file, config_file)
    config = read_config(config_file)
    trainer = section(config, "trainer")
    weights = open_tensors(file)
    W_dec = _decoder(weights, trainer)
    return SAE(
        W_dec=W_dec,
        format=NAME,
        path=path,
        site=_site(trainer),
        model_name=text(trainer, "lm_name", config_file),
        metadata=config,
        weights=weights,
        read_encoding=partial(_encoding, weights, trainer.get("dict_class"), W_dec),
    )


def _decoder(weights: TensorFile, trainer: dict[str, Any]) -> StoredDecoder:
    said = {key: trainer.get(key) for key in ("dict_size", "activation_dim")}
    if "W_dec" in weights.tensors:
        return decoder_from(weights, "W_dec", said=said)
    if "decoder.weight" in weights.tensors:
        return decoder_from(weights, "decoder.weight", transposed=True, said=said)
    raise InputError(
        f"{weights.path} has neither decoder.weight nor W_dec; it has {weights.describe()}"
    )


def _site(trainer: dict[str, Any]) -> str | None:
    name = str(trainer.get("submodule_name"))
    if named := re.fullmatch(r"resid_post_layer_(\d+)", name):
        return resid_post(named[1])
    if named := re.fullmatch(r"(mlp|attention)(?:_out)?_layer_(\d+)", name):
        return f"blocks.{named[2]}.{OTHER_SITES[named[1]]}"
    return None


def _encoding(weights: TensorFile, dict_class: object, W_dec: StoredDecoder) -> Encoding:
    if not isinstance(dict_class, str) or dict_class not in CLASSES:
        raise InputError(
            f"{weights.path}: cannot be encoded with: {CONFIG} names dict_class "
            f"{quoted(dict_class)}; "
            f"known are {', '.join(CLASSES)}"
        )
    return CLASSES[dict_class](weights, W_dec)


def _linear(weights: TensorFile, W_dec: StoredDecoder) -> EncoderRows:
    return encoder_from(weights, "encoder.weight", n_latents=W_dec.n_latents, d_in=W_dec.d_model)


def _columns(weights: TensorFile, W_dec: StoredDecoder) -> EncoderRows:
    sizes = {"n_latents": W_dec.n_latents, "d_in": W_dec.d_model}
    return encoder_from(weights, "W_enc", **sizes, transposed=True)


def _auto_encoder(weights: TensorFile, W_dec: StoredDecoder) -> Encoding:
    encoding = _by_rows(weights, W_dec, ReLU(), b_dec="bias")
    return replace(encoding, rescale_by_decoder_norm=True)


def _auto_encoder_new(weights: TensorFile, W_dec: StoredDecoder) -> Encoding:
    encoding = _by_rows(weights, W_dec, ReLU(), b_dec="decoder.bias")
    return replace(encoding, subtract_b_dec=False)


def _gated(weights: TensorFile, W_dec: StoredDecoder) -> Encoding:
    r_mag, mag_bias, gate_bias = (
        vector(weights, name, W_dec.n_latents) for name in ("r_mag", "mag_bias", "gate_bias")
    )
    return Encoding(
        W_enc=_linear(weights, W_dec),
        b_enc=None,
        b_dec=vector(weights, "decoder_bias", W_dec.d_model),
        activation=Gated(scale=r_mag.exp(), bias=mag_bias, gate_bias=gate_bias),
        subtract_b_dec=True,
    )


def _topk(weights: TensorFile, W_dec: StoredDecoder) -> Encoding:
    k = {"k": first_number(weights.get("k").read(), f"{weights.path}: k")}
    return _by_rows(weights, W_dec, TopK(count(k, "k", weights.path, W_dec.n_latents)))


def _batch_topk(weights: TensorFile, W_dec: StoredDecoder) -> Encoding:
    return _by_rows(weights, W_dec, Threshold(_trained_threshold(weights, W_dec)))


def _matryoshka(weights: TensorFile, W_dec: StoredDecoder) -> Encoding:
    return _by_columns(weights, W_dec, Threshold(_trained_threshold(weights, W_dec)))


def _jump_relu(weights: TensorFile, W_dec: StoredDecoder) -> Encoding:
    found = Threshold(threshold(weights, "threshold", W_dec.n_latents))
    return replace(_by_columns(weights, W_dec, found), subtract_b_dec=False)


def _by_rows(
    weights: TensorFile, W_dec: StoredDecoder, activation: Activation, b_dec: str = "b_dec"
) -> Encoding:
    return Encoding(
        W_enc=_linear(weights, W_dec),
        b_enc=vector(weights, "encoder.bias", W_dec.n_latents),
        b_dec=vector(weights, b_dec, W_dec.d_model),
        activation=activation,
        subtract_b_dec=True,
    )


def _by_columns(weights: TensorFile, W_dec: StoredDecoder, activation: Activation) -> Encoding:
    return Encoding(
        W_enc=_columns(weights, W_dec),
        b_enc=vector(weights, "b_enc", W_dec.n_latents),
        b_dec=vector(weights, "b_dec", W_dec.d_model),
        activation=activation,
        subtract_b_dec=True,
    )


def _trained_threshold(weights: TensorFile, W_dec: StoredDecoder) -> Tensor:
    value = threshold(weights, "threshold", W_dec.n_latents)
    if value.min() < 0:
        raise InputError(
            f"{weights.path}: cannot be encoded with: threshold is {value.min():g}, which says "
            "that training ended before it was set"
        )
    return value


CLASSES: dict[str, Callable[[TensorFile, StoredDecoder], Encoding]] = {
    "AutoEncoder": _auto_encoder,
    "AutoEncoderNew": _auto_encoder_new,
    "GatedAutoEncoder": _gated,
    "AutoEncoderTopK": _topk,
    "BatchTopKSAE": _batch_topk,
    "JumpReluAutoEncoder": _jump_relu,
    "MatryoshkaBatchTopKSAE": _matryoshka,
}
