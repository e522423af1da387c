"""A decoder and nothing said about it: one matrix [n_latents, d_model] in a tensor file.

The orientation is the caller's word: nothing in such a file could tell it.
"""

from __future__ import annotations

from pathlib import Path

from deltalens.errors import InputError
from deltalens.sae.checkpoint import SAE
from deltalens.sae.files import open_tensors
from deltalens.sae.stored import TensorFile, decoder_from

NAME = "bare"
SUFFIXES = (".safetensors", ".npz", ".npy")
LAYOUT = f"a {', '.join(SUFFIXES)} file with a matrix [n_latents, d_model]"
OBVIOUS_NAMES = ("W_dec", "w_dec")


def detect(path: Path) -> bool:
    return path.is_file() and path.suffix in SUFFIXES


def load(path: Path, tensor: str | None = None) -> SAE:
    if not detect(path):
        raise InputError(f"{path} is not {LAYOUT}")
    weights = open_tensors(path)
    return SAE(
        W_dec=decoder_from(weights, tensor or _decoder_name(weights)),
        format=NAME,
        path=path,
        site=None,
        model_name=None,
        metadata={},
        weights=weights,
    )


def _decoder_name(weights: TensorFile) -> str:
    obvious = [name for name in OBVIOUS_NAMES if name in weights.tensors]
    matrices = [name for name, stored in weights.tensors.items() if len(stored.shape) == 2]
    if len(obvious or matrices) != 1:
        raise InputError(
            f"{weights.path}: which tensor is the decoder? It has {weights.describe()}; "
            "name the one that is [n_latents, d_model] with tensor="
        )
    return (obvious or matrices)[0]
