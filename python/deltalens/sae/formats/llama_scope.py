"""Llama Scope: ``hyperparams.json`` and ``checkpoints/final.safetensors``; decoder.weight [d, F].

Later ones (R1-Distill) have ``config.json`` and ``sae_weights.safetensors`` with a threshold per
latent, as its logarithm.

The SAEs were trained on inputs multiplied by s = √d / mean norm, and their thresholds are compared
with pre-activations of such inputs; the library itself divides biases and thresholds alike when it
folds s into the weights. So s scales the input and never the threshold (SAELens multiplies the
first release's thresholds by s, and not the second's). Where ``sparsity_include_decoder_norm`` is
set, the library compares pre-activations times the decoder's norm. A transcoder's output has a mean
norm of its own.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deltalens.errors import InputError, quoted
from deltalens.sae.checkpoint import SAE
from deltalens.sae.encoding import Activation, Encoding, ReLU, Threshold, TopK
from deltalens.sae.files import open_tensors
from deltalens.sae.formats.layout import (
    count,
    first_number,
    flag,
    number,
    place,
    read_config,
    require_files,
    section,
    text,
)
from deltalens.sae.matrices import decoder_from, encoder_from, vector
from deltalens.sae.stored import StoredDecoder, TensorFile

NAME = "llama_scope"
FILES = {
    "hyperparams.json": "checkpoints/final.safetensors",
    "config.json": "sae_weights.safetensors",
}
LAYOUT = "a directory with hyperparams.json and checkpoints/final.safetensors"
PART = None

NORMS = "dataset_average_activation_norm"
LOG_THRESHOLDS = ("log_jumprelu_threshold", "activation_function.log_jumprelu_threshold")
MODELS = {
    "R1-Distill": "deepseek-ai/DeepSeek-R1-Distill-Llama-8B",
    "Llama3_1-8B-Base": "meta-llama/Llama-3.1-8B",
}


def detect(path: Path) -> bool:
    return all(file.is_file() for file in _files(path))


def load(path: Path, part: str | None = None) -> SAE:
    config_file, file = _files(path)
    require_files(path, NAME, file, config_file)
    config = read_config(config_file)
    weights = open_tensors(file)
    said = {"d_sae": config.get("d_sae"), "d_model": config.get("d_model")}
    W_dec = decoder_from(weights, "decoder.weight", transposed=True, said=said)
    where = place(file)
    return SAE(
        W_dec=W_dec,
        format=NAME,
        path=path,
        site=text(config, "hook_point_out", config_file)
        or text(config, "hook_point_in", config_file),
        model_name=next((model for name, model in MODELS.items() if name in where), None),
        metadata=config,
        weights=weights,
        read_encoding=partial(_encoding, weights, W_dec, config, config_file),
        input_site=_input_site(config),
    )


def _input_site(config: dict[str, Any]) -> str | None:
    reads, writes = (text(config, f"hook_point_{side}", Path("config")) for side in ("in", "out"))
    return None if writes in (None, reads) else reads


def _files(path: Path) -> tuple[Path, Path]:
    directory = path
    if path.is_file():
        directory = path.parent.parent if path.name == "final.safetensors" else path.parent
    pairs = [(directory / config, directory / weights) for config, weights in FILES.items()]
    return next((pair for pair in pairs if all(file.is_file() for file in pair)), pairs[0])


def _encoding(
    weights: TensorFile, W_dec: StoredDecoder, config: dict[str, Any], config_file: Path
) -> Encoding:
    if flag(config, "use_glu_encoder", config_file):
        raise InputError(f"{weights.path}: cannot be encoded with: its encoder has a GLU")
    F, d = W_dec.n_latents, W_dec.d_model
    biased = flag(config, "use_decoder_bias", config_file, True)
    scale_in, scale_out = (_scale(weights, config, config_file, side, d) for side in ("in", "out"))
    return Encoding(
        W_enc=encoder_from(weights, "encoder.weight", n_latents=F, d_in=d),
        b_enc=vector(weights, "encoder.bias", F),
        b_dec=vector(weights, "decoder.bias", d) if biased else torch.zeros(d),
        activation=_activation(weights, config, config_file, F),
        subtract_b_dec=flag(config, "apply_decoder_bias_to_pre_encoder", config_file),
        input_scale=scale_in,
        output_scale=scale_out,
        rescale_by_decoder_norm=flag(config, "sparsity_include_decoder_norm", config_file),
    )


def _scale(
    weights: TensorFile, config: dict[str, Any], config_file: Path, side: str, d: int
) -> float:
    """√d over the mean norm of what is read (``in``) or written (``out``)."""
    kind = config.get("norm_activation", "dataset-wise")
    if kind == "inference":  # the weights have it already
        return 1.0
    if kind != "dataset-wise":
        raise InputError(
            f"{weights.path}: cannot be encoded with: norm_activation = {quoted(kind)}"
        )
    point = config.get(f"hook_point_{side}") or config.get("hook_point_in")
    norms = dict(section(config, NORMS))
    if f"{NORMS}.{point}" in weights.tensors:
        name = f"{NORMS}.{point}"
        norms[side] = first_number(weights.get(name).read(), f"{weights.path}: {name}")
    # Only a transcoder writes elsewhere than it reads.
    norms.setdefault("out", norms.get("in"))
    return d**0.5 / number(norms, side, Path(f"{config_file}: {NORMS}"))


def _activation(
    weights: TensorFile, config: dict[str, Any], config_file: Path, F: int
) -> Activation:
    kind = str(config.get("act_fn", "jumprelu")).lower()
    if kind == "relu":
        return ReLU()
    if kind == "topk":
        return TopK(count(config, "top_k", config_file, F))
    if kind == "jumprelu":
        return Threshold(_threshold(weights, config, config_file, F))
    raise InputError(f"{weights.path}: cannot be encoded with: act_fn = {quoted(kind)}")


def _threshold(weights: TensorFile, config: dict[str, Any], config_file: Path, F: int) -> Tensor:
    for name in LOG_THRESHOLDS:
        if name in weights.tensors:
            return vector(weights, name, F).exp()
    if "jump_relu_threshold" not in config:
        raise InputError(
            f"{weights.path}: cannot be encoded with: neither {LOG_THRESHOLDS[0]} here nor "
            f"jump_relu_threshold in {config_file.name}"
        )
    return torch.full((F,), number(config, "jump_relu_threshold", config_file))
