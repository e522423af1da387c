"""Gemma Scope: ``params.npz`` with W_dec (w_dec in some files) [n_latents, d_model].

All else that is known is in the path, as published:
``gemma-scope-2b-pt-res/layer_12/width_16k/average_l0_82/params.npz``.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from deltalens.errors import InputError
from deltalens.sae.checkpoint import SAE
from deltalens.sae.files import open_tensors
from deltalens.sae.formats.layout import require_files, weight_file
from deltalens.sae.stored import TensorFile, decoder_from

NAME = "gemma_scope"
WEIGHTS = "params.npz"
LAYOUT = f"a directory with {WEIGHTS}"

HOOKS = {"res": "hook_resid_post", "mlp": "hook_mlp_out", "att": "attn.hook_z"}
REPOSITORY = re.compile(r"gemma-scope-(?P<size>\d+b)-(?P<variant>pt|it)-(?P<part>res|mlp|att)\b")


def detect(path: Path) -> bool:
    file = weight_file(path, WEIGHTS)
    return file.name == WEIGHTS and file.is_file()


def load(path: Path) -> SAE:
    file = weight_file(path, WEIGHTS)
    require_files(path, NAME, file)
    metadata = _from_path(file)
    weights = open_tensors(file)
    said = {"b_enc": _length(weights, "b_enc"), "b_dec": _length(weights, "b_dec")}
    return SAE(
        W_dec=decoder_from(weights, "w_dec" if "w_dec" in weights.tensors else "W_dec", said=said),
        format=NAME,
        path=path,
        site=_site(metadata),
        model_name=_model_name(metadata),
        metadata=metadata,
        weights=weights,
    )


def _length(weights: TensorFile, name: str) -> int | None:
    stored = weights.tensors.get(name)
    return None if stored is None else stored.shape[0]


def _from_path(file: Path) -> dict[str, Any]:
    place = file.resolve().as_posix()
    if "/embedding/" in place:
        raise InputError(f"{file}: an SAE of token embeddings; use one of a layer's output")
    patterns = {"layer": r"/layer_(\d+)/", "width": r"/width_(\w+)/", "average_l0": r"_l0_(\d+)/"}
    found = {key: re.search(pattern, place) for key, pattern in patterns.items()}
    metadata: dict[str, Any] = {key: match.group(1) for key, match in found.items() if match}
    metadata |= {key: int(metadata[key]) for key in ("layer", "average_l0") if key in metadata}
    repository = REPOSITORY.search(place)
    return metadata | (repository.groupdict() if repository else {})


def _site(metadata: dict[str, Any]) -> str | None:
    if "layer" not in metadata or "part" not in metadata:
        return None
    return f"blocks.{metadata['layer']}.{HOOKS[metadata['part']]}"


def _model_name(metadata: dict[str, Any]) -> str | None:
    if "size" not in metadata:
        return None
    return f"google/gemma-2-{metadata['size']}" + ("-it" if metadata["variant"] == "it" else "")
