"""A decoder and nothing said about it: one matrix [n_latents, d_model] in a tensor file.

The orientation is the caller's word: nothing in such a file could tell it.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from deltalens.errors import InputError
from deltalens.sae.checkpoint import SAE
from deltalens.sae.encoding import Encoding
from deltalens.sae.files import open_tensors
from deltalens.sae.matrices import decoder_from
from deltalens.sae.stored import TensorFile

NAME = "bare"
SUFFIXES = (".safetensors", ".npz", ".npy")
LAYOUT = f"a {', '.join(SUFFIXES)} file with a matrix [n_latents, d_model]"
PART = None
OBVIOUS_NAMES = ("W_dec", "w_dec")


def detect(path: Path) -> bool:
    return path.is_file() and path.suffix in SUFFIXES


def load(path: Path, part: str | None = None) -> SAE:
    return load_tensor(path, None)


def load_tensor(path: Path, tensor: str | None) -> SAE:
    """The decoder that the file calls ``tensor``; None finds it where there is no doubt."""
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
        read_encoding=partial(_no_encoding, path),
    )


def _no_encoding(path: Path) -> Encoding:
    raise InputError(
        f"{path}: cannot be encoded with: a bare file gives a decoder only, and nothing says how "
        "its encoder works"
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
