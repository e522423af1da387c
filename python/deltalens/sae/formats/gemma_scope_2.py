"""Gemma Scope 2: ``config.json`` and ``params.safetensors`` with w_dec [n_latents, d_model].

JumpReLU, nothing subtracted from the input. A cross-layer transcoder keeps w_dec
[n_latents, layers, d_model]: ``part`` is the layer that is written to. Its encoding's
reconstruction is what this one layer contributes there, so without bias and skip connection, which
belong to the sum over layers.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

import torch

from deltalens.errors import InputError, quoted
from deltalens.sae.checkpoint import SAE
from deltalens.sae.encoding import Encoding, Threshold
from deltalens.sae.files import open_tensors
from deltalens.sae.formats.layout import (
    choose,
    place,
    read_config,
    require_files,
    resid_post,
    text,
    weight_file,
)
from deltalens.sae.matrices import (
    check_matrix,
    check_names,
    decoder_from,
    encoder_from,
    matrix,
    threshold,
    vector,
)
from deltalens.sae.stored import StoredDecoder, TensorFile

NAME = "gemma_scope_2"
WEIGHTS = "params.safetensors"
CONFIG = "config.json"
LAYOUT = f"a directory with {WEIGHTS} and {CONFIG}"
PART = "target layer"

SKIP = "affine_skip_connection"
POINTS = {
    r"model\.layers\.(\d+)\.output": "hook_resid_post",
    r"model\.layers\.(\d+)\.self_attn\.o_proj\.input": "attn.hook_z",
    r"model\.layers\.(\d+)\.post_feedforward_layernorm\.output": "hook_mlp_out",
}


def detect(path: Path) -> bool:
    file = weight_file(path, WEIGHTS)
    named = re.fullmatch(r"params(_layer_\d+)?\.safetensors", file.name)
    return bool(named) and file.is_file() and file.with_name(CONFIG).is_file()


def load(path: Path, part: str | None = None) -> SAE:
    file = weight_file(path, WEIGHTS)
    config_file = file.with_name(CONFIG)
    require_files(path, NAME, file, config_file)
    config = read_config(config_file)
    weights = open_tensors(file)
    target = _target(weights, path, part)
    W_dec = _decoder(weights, target)
    return SAE(
        W_dec=W_dec,
        format=NAME,
        path=path,
        site=_site(config, target),
        model_name=_model_name(config),
        metadata=config,
        weights=weights,
        read_encoding=partial(_encoding, weights, W_dec, config, target),
        input_site=_input_site(config, target),
    )


def parts(path: Path) -> list[str]:
    """The layers that a cross-layer transcoder writes to."""
    shape = open_tensors(weight_file(path, WEIGHTS)).get("w_dec").shape
    return [str(layer) for layer in range(_source(path) or 0, shape[1])] if shape[2:] else []


def _target(weights: TensorFile, path: Path, part: str | None) -> int | None:
    shape = weights.get("w_dec").shape
    if len(shape) == 3:
        check_matrix(weights, "w_dec", weights.get("w_dec"), ndim=3)
        return int(choose(path, part, parts(path), PART))
    if part is not None:
        raise InputError(f"{path}: part={quoted(part)}, but this is no cross-layer transcoder")
    return None


def _source(path: Path) -> int | None:
    """The layer that a cross-layer transcoder reads: it writes to none before."""
    layers = re.findall(r"layer_(\d+)", place(path))
    return int(layers[-1]) if layers else None


def _decoder(weights: TensorFile, target: int | None) -> StoredDecoder:
    if target is None:
        return decoder_from(weights, "w_dec")
    stored = weights.get("w_dec")
    check_matrix(weights, "w_dec", stored, ndim=3)
    return StoredDecoder(stored.plane(target))


def _encoding(
    weights: TensorFile, W_dec: StoredDecoder, config: dict[str, Any], target: int | None
) -> Encoding:
    if config.get("architecture") != "jump_relu":
        raise InputError(
            f"{weights.path}: cannot be encoded with: architecture "
            f"{quoted(config.get('architecture'))} is not jump_relu"
        )
    F, d = W_dec.n_latents, W_dec.d_model
    check_names(weights, "w_enc", "w_dec", "b_enc", "b_dec", "threshold", SKIP)
    maps = target is not None or SKIP in weights.tensors or "hf_hook_point_out" in config
    W_enc = encoder_from(weights, "w_enc", n_latents=F, d_in=None if maps else d, transposed=True)
    alone = target is None
    skips = alone and SKIP in weights.tensors
    return Encoding(
        W_enc=W_enc,
        b_enc=vector(weights, "b_enc", F),
        b_dec=vector(weights, "b_dec", d) if alone else torch.zeros(d),
        activation=Threshold(threshold(weights, "threshold", F)),
        subtract_b_dec=False,
        W_skip=matrix(weights, SKIP, (W_enc.d_model, d)).T.contiguous() if skips else None,
    )


def _site(config: dict[str, Any], target: int | None) -> str | None:
    point = str(config.get("hf_hook_point_out") or config.get("hf_hook_point_in"))
    for pattern, hook in POINTS.items():
        if match := re.fullmatch(pattern, point):
            layer = match[1] if target is None else target
            return resid_post(layer) if hook == "hook_resid_post" else f"blocks.{layer}.{hook}"
    return None


def _input_site(config: dict[str, Any], target: int | None) -> str | None:
    reads = text(config, "hf_hook_point_in", Path(CONFIG))
    if target is None and text(config, "hf_hook_point_out", Path(CONFIG)) in (None, reads):
        return None
    return str(reads)


def _model_name(config: dict[str, Any]) -> str | None:
    name = config.get("model_name")
    if not isinstance(name, str):
        return None
    name = name.replace("-v3", "-3")
    # The hub has the pretrained model of this size under a name without -pt.
    name = name.replace("-pt", "") if "270m" in name else name
    return name if "/" in name else f"google/{name}"
