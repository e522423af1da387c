"""Qwen Scope: ``layer{n}.sae.pt``, one file per layer, with W_dec [d_in, d_sae].

Model and k are in the repository's name, ``SAE-Res-{model}-W{N}K-L0_{k}``. TopK; nothing is
subtracted from the input.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

from deltalens.errors import InputError
from deltalens.sae.checkpoint import SAE
from deltalens.sae.encoding import Encoding, TopK
from deltalens.sae.files import open_tensors
from deltalens.sae.formats.layout import choose, count, describe, place, resid_post
from deltalens.sae.matrices import decoder_from, encoder_from, vector
from deltalens.sae.stored import StoredDecoder, TensorFile

NAME = "qwen_scope"
LAYOUT = "layer{n}.sae.pt files"
PART = "layer"

FILE = re.compile(r"layer(\d+)\.sae\.pt")
REPOSITORY = re.compile(r"SAE-Res-(?P<model>[^/]+)-W\d+K-L0_(?P<k>\d+)")


def detect(path: Path) -> bool:
    return bool(_layers(path))


def load(path: Path, part: str | None = None) -> SAE:
    layers = _layers(path)
    if not layers:
        raise InputError(
            f"{path} is not a {NAME} checkpoint: layer{{n}}.sae.pt is missing, "
            f"found {describe(path)}"
        )
    layer = choose(path, part, layers, PART)
    weights = open_tensors(layers[layer])
    W_dec = decoder_from(weights, "W_dec", transposed=True)
    metadata = _from_path(layers[layer])
    return SAE(
        W_dec=W_dec,
        format=NAME,
        path=path,
        site=resid_post(layer),
        model_name=f"Qwen/{metadata['model']}" if "model" in metadata else None,
        metadata=metadata,
        weights=weights,
        read_encoding=partial(_encoding, weights, W_dec, metadata),
    )


def parts(path: Path) -> list[str]:
    """The layers."""
    return list(_layers(path)) if path.is_dir() else []


def _layers(path: Path) -> dict[str, Path]:
    files = path.iterdir() if path.is_dir() else [path]
    matches = ((FILE.fullmatch(file.name), file) for file in files)
    return {match[1]: file for match, file in matches if match and file.is_file()}


def _from_path(file: Path) -> dict[str, Any]:
    found = REPOSITORY.search(place(file))
    return {"model": found["model"], "k": int(found["k"])} if found else {}


def _encoding(weights: TensorFile, W_dec: StoredDecoder, metadata: dict[str, Any]) -> Encoding:
    F, d = W_dec.n_latents, W_dec.d_model
    if "k" not in metadata:
        raise InputError(
            f"{weights.path}: cannot be encoded with: k is recorded only in the repository's name, "
            "so keep the file in a directory SAE-Res-{model}-W{N}K-L0_{k}"
        )
    return Encoding(
        W_enc=encoder_from(weights, "W_enc", n_latents=F, d_in=d),
        b_enc=vector(weights, "b_enc", F),
        b_dec=vector(weights, "b_dec", d),
        activation=TopK(count(metadata, "k", weights.path, F)),
        subtract_b_dec=False,
    )
