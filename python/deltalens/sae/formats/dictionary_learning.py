"""dictionary_learning: ``ae.pt`` (a state dict) beside ``config.json``.

Most of its classes keep ``decoder.weight`` [activation_dim, dict_size]; the JumpReLU and Matryoshka
ones keep ``W_dec`` [dict_size, activation_dim]. The name decides, so a square decoder is no riddle.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from deltalens.errors import InputError
from deltalens.sae.checkpoint import SAE
from deltalens.sae.files import open_tensors
from deltalens.sae.formats.layout import read_config, require_files, weight_file
from deltalens.sae.stored import StoredDecoder, TensorFile, decoder_from

NAME = "dictionary_learning"
WEIGHTS = "ae.pt"
CONFIG = "config.json"
LAYOUT = f"a directory with {WEIGHTS} and {CONFIG}"


def detect(path: Path) -> bool:
    file = weight_file(path, WEIGHTS)
    return file.name == WEIGHTS and file.is_file()


def load(path: Path) -> SAE:
    file = weight_file(path, WEIGHTS)
    config_file = file.with_name(CONFIG)
    require_files(path, NAME, file, config_file)
    config = read_config(config_file)
    trainer = config.get("trainer") or {}
    weights = open_tensors(file)
    return SAE(
        W_dec=_decoder(weights, trainer),
        format=NAME,
        path=path,
        site=_site(trainer),
        model_name=trainer.get("lm_name"),
        metadata=config,
        weights=weights,
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
    named = re.fullmatch(r"resid_post_layer_(\d+)", str(trainer.get("submodule_name")))
    return f"blocks.{named.group(1)}.hook_resid_post" if named else None
