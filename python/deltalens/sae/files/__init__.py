"""Containers of tensors: one module for each, all of them giving a :class:`TensorFile`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from deltalens.errors import InputError
from deltalens.sae.files.numpy_file import open_npy, open_npz
from deltalens.sae.files.safetensors_file import open_safetensors
from deltalens.sae.files.torch_file import open_torch
from deltalens.sae.stored import TensorFile

OPENERS: dict[str, Callable[[Path], TensorFile]] = {
    ".safetensors": open_safetensors,
    ".npz": open_npz,
    ".npy": open_npy,
    ".pt": open_torch,
    ".pth": open_torch,
}


def open_tensors(path: Path) -> TensorFile:
    """The tensors of ``path``, by its suffix. Nothing but headers is read, no object unpickled.

    Raises :class:`InputError` for other suffixes and for truncated or foreign contents.
    """
    opener = OPENERS.get(path.suffix)
    if opener is None:
        raise InputError(f"{path}: not one of the readable files ({', '.join(OPENERS)})")
    return opener(path)
