"""Gemma Scope: ``params.npz`` with W_dec (w_dec in some files) [n_latents, d_model]; JumpReLU.

All else that is known is in the path, as published:
``gemma-scope-2b-pt-res/layer_12/width_16k/average_l0_82/params.npz``. SAEs of token embeddings,
under ``embedding/``, were trained on embeddings divided by √d_model.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

from deltalens.sae.checkpoint import SAE
from deltalens.sae.encoding import Encoding, Threshold
from deltalens.sae.files import open_tensors
from deltalens.sae.formats.layout import place, require_files, weight_file
from deltalens.sae.matrices import decoder_from, encoder_from, threshold, vector
from deltalens.sae.stored import StoredDecoder, TensorFile

NAME = "gemma_scope"
WEIGHTS = "params.npz"
LAYOUT = f"a directory with {WEIGHTS}"
PART = None

HOOKS = {
    "res": "hook_resid_post",
    "mlp": "hook_mlp_out",
    "att": "attn.hook_z",
    "transcoders": "hook_mlp_out",
}
REPOSITORY = re.compile(
    r"gemma-scope-(?P<size>\d+b)-(?P<variant>pt|it)-(?P<part>res|mlp|att|transcoders)\b"
)


def detect(path: Path) -> bool:
    file = weight_file(path, WEIGHTS)
    return file.name == WEIGHTS and file.is_file()


def load(path: Path, part: str | None = None) -> SAE:
    file = weight_file(path, WEIGHTS)
    require_files(path, NAME, file)
    metadata = _from_path(file)
    weights = open_tensors(file)
    said = {"b_enc": _length(weights, "b_enc"), "b_dec": _length(weights, "b_dec")}
    W_dec = decoder_from(weights, _name(weights, "W_dec"), said=said)
    return SAE(
        W_dec=W_dec,
        format=NAME,
        path=path,
        site=_site(metadata),
        model_name=_model_name(metadata),
        metadata=metadata,
        weights=weights,
        read_encoding=partial(_encoding, weights, W_dec, metadata),
        input_site=_input_site(metadata),
    )


def _encoding(weights: TensorFile, W_dec: StoredDecoder, metadata: dict[str, Any]) -> Encoding:
    F, d = W_dec.n_latents, W_dec.d_model
    d_in = None if metadata.get("part") == "transcoders" else d
    name = _name(weights, "W_enc")
    return Encoding(
        W_enc=encoder_from(weights, name, n_latents=F, d_in=d_in, transposed=True),
        b_enc=vector(weights, "b_enc", F),
        b_dec=vector(weights, "b_dec", d),
        activation=Threshold(threshold(weights, "threshold", F)),
        subtract_b_dec=False,
        input_scale=d**-0.5 if metadata.get("embedding") else 1.0,
    )


def _name(weights: TensorFile, name: str) -> str:
    return name.lower() if name.lower() in weights.tensors else name


def _length(weights: TensorFile, name: str) -> int | None:
    stored = weights.tensors.get(name)
    return None if stored is None or not stored.shape else stored.shape[0]


def _from_path(file: Path) -> dict[str, Any]:
    where = place(file)
    patterns = {"layer": r"/layer_(\d+)/", "width": r"/width_(\w+)/", "average_l0": r"_l0_(\d+)/"}
    found = {key: re.search(pattern, where) for key, pattern in patterns.items()}
    metadata: dict[str, Any] = {key: match.group(1) for key, match in found.items() if match}
    metadata |= {key: int(metadata[key]) for key in ("layer", "average_l0") if key in metadata}
    metadata |= {"embedding": True} if "/embedding/" in where else {}
    repository = REPOSITORY.search(where)
    return metadata | (repository.groupdict() if repository else {})


def _site(metadata: dict[str, Any]) -> str | None:
    if metadata.get("embedding"):
        return "hook_embed"
    if "layer" not in metadata or "part" not in metadata:
        return None
    return f"blocks.{metadata['layer']}.{HOOKS[metadata['part']]}"


def _input_site(metadata: dict[str, Any]) -> str | None:
    if metadata.get("part") != "transcoders":
        return None
    return f"blocks.{metadata.get('layer', 'N')}.ln2.hook_normalized"


def _model_name(metadata: dict[str, Any]) -> str | None:
    if "size" not in metadata:
        return None
    return f"google/gemma-2-{metadata['size']}" + ("-it" if metadata["variant"] == "it" else "")
