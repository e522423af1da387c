"""sparsify (EleutherAI): ``cfg.json`` and ``sae.safetensors`` with W_dec [num_latents, d_in].

A published run is a directory with one such directory per hookpoint, named as the module in the
model (``layers.10``, ``layers.10.mlp``), and the run's ``config.json``. The decoder's bias is
subtracted from the input unless the coder maps a module's input to its output (``transcode``).
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

from deltalens.errors import InputError, quoted
from deltalens.sae.checkpoint import SAE
from deltalens.sae.encoding import Encoding, GroupMax, TopK
from deltalens.sae.files import open_tensors
from deltalens.sae.formats.layout import (
    choose,
    count,
    flag,
    read_config,
    require_files,
    weight_file,
)
from deltalens.sae.matrices import check_names, decoder_from, encoder_from, matrix, vector
from deltalens.sae.stored import StoredDecoder, TensorFile

NAME = "sparsify"
WEIGHTS = "sae.safetensors"
CONFIG = "cfg.json"
RUN_CONFIG = "config.json"
LAYOUT = f"a directory with {CONFIG} and {WEIGHTS}, or one of such directories by hookpoint"
PART = "hookpoint"


def detect(path: Path) -> bool:
    file = weight_file(path, WEIGHTS)
    alone = file.name == WEIGHTS and file.is_file() and file.with_name(CONFIG).is_file()
    return alone or bool(parts(path))


def load(path: Path, part: str | None = None) -> SAE:
    file = _weights(path, part)
    config_file = file.with_name(CONFIG)
    require_files(path, NAME, file, config_file)
    config = read_config(config_file)
    weights = open_tensors(file)
    W_dec = decoder_from(weights, "W_dec", said=_sizes(config))
    return SAE(
        W_dec=W_dec,
        format=NAME,
        path=path,
        site=_site(file.absolute().parent.name),
        model_name=_model_name(file.absolute().parent.parent / RUN_CONFIG),
        metadata=config,
        weights=weights,
        read_encoding=partial(_encoding, weights, W_dec, config),
        input_site=f"the input of {file.absolute().parent.name}"
        if flag(config, "transcode", config_file)
        else None,
    )


def parts(path: Path) -> list[str]:
    """The hookpoints of a run."""
    if not path.is_dir():
        return []
    held = (file.parent for file in path.glob(f"*/{WEIGHTS}"))
    return [directory.name for directory in held if (directory / CONFIG).is_file()]


def _weights(path: Path, part: str | None) -> Path:
    file = weight_file(path, WEIGHTS)
    hookpoints = parts(path)
    if file.is_file() or not hookpoints:
        if part is not None:
            raise InputError(f"{path}: part={quoted(part)}, but this holds one SAE")
        return file
    return path / choose(path, part, hookpoints, PART) / WEIGHTS


def _sizes(config: dict[str, Any]) -> dict[str, Any]:
    d_in, given = config.get("d_in"), config.get("num_latents")
    factor = config.get("expansion_factor")
    if not given and isinstance(d_in, int) and isinstance(factor, int):
        given = d_in * factor
    return {"num_latents": given or None, "d_in": d_in}


def _site(hookpoint: str) -> str | None:
    if block := re.fullmatch(r"(?:layers|h)\.(\d+)", hookpoint):
        return f"layers.{block[1]}"
    known = re.fullmatch(r"(layers|h)\.\d+\..+|embed_tokens|wte|embed_in", hookpoint)
    return hookpoint if known else None


def _model_name(run_config: Path) -> str | None:
    name = read_config(run_config).get("model") if run_config.is_file() else None
    return name if isinstance(name, str) else None


def _encoding(weights: TensorFile, W_dec: StoredDecoder, config: dict[str, Any]) -> Encoding:
    F, d = W_dec.n_latents, W_dec.d_model
    said_in = weights.path.with_name(CONFIG)
    skips = flag(config, "skip_connection", said_in)
    names = ("encoder.weight", "encoder.bias", "W_dec", "b_dec")
    check_names(weights, *names, *(("W_skip",) if skips else ()))
    return Encoding(
        W_enc=encoder_from(weights, "encoder.weight", n_latents=F, d_in=d),
        b_enc=vector(weights, "encoder.bias", F),
        b_dec=vector(weights, "b_dec", d),
        activation=_activation(weights.path, config, F),
        subtract_b_dec=not flag(config, "transcode", said_in),
        W_skip=matrix(weights, "W_skip", (d, d)) if skips else None,
    )


def _activation(path: Path, config: dict[str, Any], F: int) -> TopK | GroupMax:
    if flag(config, "signed", path.with_name(CONFIG)):
        raise InputError(f"{path}: cannot be encoded with: signed latents (no ReLU before TopK)")
    kind = config.get("activation", "topk")
    k = count(config, "k", path.with_name(CONFIG), F)
    if kind == "topk":
        return TopK(k)
    if kind == "groupmax" and F % k == 0:
        return GroupMax(k)
    raise InputError(
        f"{path}: cannot be encoded with: activation {quoted(kind)} with k = {k} of {F} latents; "
        "known are topk, and groupmax with k dividing the latents"
    )
