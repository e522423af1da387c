"""circuit-tracer's transcoders: ``layer_{i}.safetensors``, or ``W_enc_{i}`` and ``W_dec_{i}``.

The first are transcoders of one layer each, ``part`` being the layer: W_dec [F, d], and W_enc
[F, d] too (older files have it transposed, which the biases' lengths tell where F ≠ d).

The second are a cross-layer transcoder, W_dec_i [F, layers − i, d]: latents of layer i write to
layer i and all after it. ``part`` is "source:target". The encoding's reconstruction is what the
source layer contributes there, so without bias, which belongs to the sum over layers.

``config.yaml`` names the model and the hooks. JumpReLU where there are thresholds, else ReLU.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

import torch

from deltalens.errors import InputError
from deltalens.sae.checkpoint import SAE
from deltalens.sae.encoding import Activation, Encoding, ReLU, Threshold
from deltalens.sae.files import open_tensors
from deltalens.sae.formats.layout import choose, describe, text
from deltalens.sae.matrices import (
    EncoderRows,
    check_matrix,
    check_names,
    decoder_from,
    encoder_from,
    matrix,
    threshold,
    vector,
)
from deltalens.sae.stored import StoredDecoder, StoredTensor, TensorFile
from deltalens.storage.yaml_text import compose_yaml, yaml_value

NAME = "circuit_tracer"
CONFIG = "config.yaml"
LAYOUT = f"{CONFIG} and layer_{{i}}.safetensors, or W_enc_{{i}} and W_dec_{{i}}.safetensors"
PART = "layer"

SINGLE = re.compile(r"layer_(\d+)\.safetensors")
ENCODER = re.compile(r"W_enc_(\d+)\.safetensors")
THRESHOLD = "activation_function.threshold"


def detect(path: Path) -> bool:
    return bool(_files(path, SINGLE) or _files(path, ENCODER))


def load(path: Path, part: str | None = None) -> SAE:
    single, encoders = _files(path, SINGLE), _files(path, ENCODER)
    if not single and not encoders:
        raise InputError(
            f"{path} is not a {NAME} checkpoint: layer_{{i}}.safetensors is missing, "
            f"found {describe(path)}"
        )
    config = _config((path if path.is_dir() else path.parent) / CONFIG)
    if single:
        layer = choose(path, part, single, PART)
        return _load_single(path, single[layer], layer, config)
    return _load_cross(path, encoders, part, config)


def parts(path: Path) -> list[str]:
    """The layers; of a cross-layer transcoder, every source:target."""
    if not path.is_dir():
        return []
    single = _files(path, SINGLE)
    return list(single) if single else _cross_parts(_cross_decoders(_files(path, ENCODER)))


def _files(path: Path, pattern: re.Pattern[str]) -> dict[str, Path]:
    files = path.iterdir() if path.is_dir() else [path]
    matches = ((pattern.fullmatch(file.name), file) for file in files)
    return {match[1]: file for match, file in matches if match and file.is_file()}


def _config(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        config = yaml_value(compose_yaml(file.read_bytes()))
    except InputError as error:
        raise InputError(f"{file}: {error}") from None
    if not isinstance(config, dict):
        raise InputError(f"{file}: a YAML {type(config).__name__}, expected a mapping")
    return config


def _load_single(path: Path, file: Path, layer: str, config: dict[str, Any]) -> SAE:
    weights = open_tensors(file)
    said = {name: list(weights.get(name).shape) for name in ("b_enc", "b_dec")}
    if any(len(shape) != 1 for shape in said.values()):
        raise InputError(f"{file}: b_enc or b_dec is no vector; it has {weights.describe()}")
    sizes = {name: shape[0] for name, shape in said.items()}
    W_dec = decoder_from(weights, "W_dec", said=sizes)
    return SAE(
        W_dec=W_dec,
        format=NAME,
        path=path,
        site=_site(config, layer),
        model_name=text(config, "model_name", Path(CONFIG)),
        metadata=config,
        weights=weights,
        read_encoding=partial(_single_encoding, weights, W_dec),
        input_site=_input_site(config, layer),
    )


def _site(config: dict[str, Any], layer: str) -> str:
    hook = text(config, "feature_output_hook", Path(CONFIG)) or "hook_mlp_out"
    return f"blocks.{layer}.{hook}"


def _input_site(config: dict[str, Any], layer: str) -> str:
    hook = text(config, "feature_input_hook", Path(CONFIG))
    return f"blocks.{layer}.{hook}" if hook else f"a hook that no {CONFIG} names"


def _single_encoding(weights: TensorFile, W_dec: StoredDecoder) -> Encoding:
    F, d = W_dec.n_latents, W_dec.d_model
    check_names(weights, "W_enc", "W_dec", "b_enc", "b_dec", "W_skip", THRESHOLD)
    return Encoding(
        W_enc=_encoder(weights, F, d),
        b_enc=vector(weights, "b_enc", F),
        b_dec=vector(weights, "b_dec", d),
        activation=_activation(weights, THRESHOLD, F),
        subtract_b_dec=False,
        W_skip=matrix(weights, "W_skip", (d, d)) if "W_skip" in weights.tensors else None,
    )


def _encoder(weights: TensorFile, F: int, d: int) -> EncoderRows:
    older = d != F and weights.get("W_enc").shape == (d, F)
    return encoder_from(weights, "W_enc", n_latents=F, d_in=d, transposed=older)


def _activation(weights: TensorFile, name: str, F: int) -> Activation:
    return Threshold(threshold(weights, name, F)) if name in weights.tensors else ReLU()


def _load_cross(
    path: Path, encoders: dict[str, Path], part: str | None, config: dict[str, Any]
) -> SAE:
    decoders = _cross_decoders(encoders)
    options = _cross_parts(decoders)
    source, target = choose(path, part, options, "source:target").split(":")
    encoder = open_tensors(encoders[source])
    decoder, stored = decoders[source]
    W_dec = StoredDecoder(stored.plane(int(target) - int(source)))
    return SAE(
        W_dec=W_dec,
        format=NAME,
        path=path,
        site=_site(config, target),
        model_name=text(config, "model_name", Path(CONFIG)),
        metadata={**config, "source_layer": int(source), "target_layer": int(target)},
        weights=TensorFile(decoder.path, {**encoder.tensors, **decoder.tensors}),
        read_encoding=partial(_cross_encoding, encoder, W_dec, source),
        input_site=_input_site(config, source),
    )


_Decoders = dict[str, tuple[TensorFile, StoredTensor]]


def _cross_decoders(encoders: dict[str, Path]) -> _Decoders:
    return {source: _cross_decoder(file, source) for source, file in encoders.items()}


def _cross_parts(decoders: _Decoders) -> list[str]:
    return [
        f"{source}:{int(source) + step}"
        for source, (_, stored) in decoders.items()
        for step in range(stored.shape[1])
    ]


def _cross_decoder(encoder_file: Path, source: str) -> tuple[TensorFile, StoredTensor]:
    file = encoder_file.with_name(f"W_dec_{source}.safetensors")
    if not file.is_file():
        raise InputError(f"{file}: no such file, but {encoder_file.name} is beside it")
    decoder = open_tensors(file)
    stored = decoder.get(f"W_dec_{source}")
    check_matrix(decoder, f"W_dec_{source}", stored, ndim=3)
    return decoder, stored


def _cross_encoding(encoder: TensorFile, W_dec: StoredDecoder, source: str) -> Encoding:
    F, d = W_dec.n_latents, W_dec.d_model
    names = ("W_enc", "b_enc", "b_dec", "threshold")
    check_names(encoder, *(f"{name}_{source}" for name in names))
    return Encoding(
        W_enc=encoder_from(encoder, f"W_enc_{source}", n_latents=F, d_in=d),
        b_enc=vector(encoder, f"b_enc_{source}", F),
        b_dec=torch.zeros(d),
        activation=_activation(encoder, f"threshold_{source}", F),
        subtract_b_dec=False,
    )
