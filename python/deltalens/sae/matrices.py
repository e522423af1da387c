"""The tensors of an SAE, checked against each other as they are taken from its files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from deltalens.engine.decoder import DECODER_DTYPES
from deltalens.errors import InputError, quoted
from deltalens.sae.stored import RowSource, StoredDecoder, StoredTensor, TensorFile
from deltalens.sae.transposed import TransposedTensor

FLOAT_DTYPES = (*DECODER_DTYPES, torch.float64)


class EncoderRows(StoredDecoder):
    """Rows of an encoder, one per latent; reading one that is not finite is an InputError."""

    def __init__(self, stored: RowSource, name: str) -> None:
        super().__init__(stored)
        self._name = name

    def _given(self, start: int, rows: Tensor) -> Tensor:
        rows = super()._given(start, rows)
        # A sum is cheap, and finite only if all its terms are.
        if not rows.sum(dtype=torch.float32).isfinite():
            bad = rows.isfinite().all(dim=1).logical_not().nonzero()
            if len(bad):
                raise InputError(f"{self._name} of latent {start + int(bad[0])} is not finite")
        return rows


def decoder_from(
    file: TensorFile,
    name: str,
    *,
    transposed: bool = False,
    said: Mapping[str, Any] | None = None,
) -> StoredDecoder:
    """The decoder held by tensor ``name``: [n_latents, d_model], or the reverse if ``transposed``.

    ``said`` is what the checkpoint's other parts say its sizes are, in the order (latents, width),
    by the names they use; None stands for silence. Raises :class:`InputError` when they disagree
    and when the tensor is no matrix of floating-point numbers.
    """
    return StoredDecoder(_matrix(file, name, transposed, said or {}))


def encoder_from(
    file: TensorFile,
    name: str,
    *,
    n_latents: int,
    d_in: int | None = None,
    transposed: bool = False,
) -> EncoderRows:
    """The encoder as rows [n_latents, d_in]; ``transposed`` if the file has them as columns.

    ``n_latents`` is the decoder's, ``d_in`` what is known of the input (the decoder's width for
    what reads and writes at one place). Errors as for :func:`decoder_from`.
    """
    said = {"decoder latents": n_latents, "input width": d_in}
    return EncoderRows(_matrix(file, name, transposed, said), f"{file.path}: {name}")


def _matrix(file: TensorFile, name: str, transposed: bool, said: Mapping[str, Any]) -> RowSource:
    stored = file.get(name)
    check_matrix(file, name, stored)
    sizes = stored.shape[::-1] if transposed else stored.shape
    if any(value not in (None, size) for value, size in zip(said.values(), sizes, strict=False)):
        layout = "[width, latents]" if transposed else "[latents, width]"
        claims = ", ".join(f"{key} = {value}" for key, value in said.items() if value is not None)
        raise InputError(
            f"{file.path}: {name} {layout} is {list(stored.shape)}, which contradicts {claims}; "
            "the files are of different SAEs or of another format"
        )
    return TransposedTensor(file, name) if transposed else stored


def check_matrix(file: TensorFile, name: str, stored: StoredTensor, ndim: int = 2) -> None:
    """Raise :class:`InputError` unless ``stored`` is non-empty and of floating-point numbers."""
    shape = list(stored.shape)
    if len(shape) != ndim or 0 in shape:
        kind = "matrix" if ndim == 2 else f"array of {ndim} dimensions"
        raise InputError(f"{file.path}: {name} has shape {shape}; expected a non-empty {kind}")
    if stored.dtype not in FLOAT_DTYPES:
        raise InputError(f"{file.path}: {name} is {stored.dtype}; expected floating-point numbers")


def check_names(file: TensorFile, *known: str) -> None:
    """Raise :class:`InputError` for tensors that the format does not have.

    Where a tensor's presence decides how latents are computed, one by another name must not pass.
    """
    unknown = sorted(set(file.tensors) - set(known))
    if unknown:
        raise InputError(
            f"{file.path}: cannot be encoded with: {', '.join(unknown[:4])} is not known in this "
            f"format, which has {', '.join(known)}"
        )


def vector(file: TensorFile, name: str, length: int) -> Tensor:
    """The fp32 vector ``name`` [length]; :class:`InputError` for another shape, dtype, or NaN."""
    return _finite(file, name, [length])


def threshold(file: TensorFile, name: str, n_latents: int) -> Tensor:
    """Activation thresholds fp32 [n_latents], from a vector or from one number for all."""
    if name not in file.tensors:
        raise InputError(
            f"{file.path} has no tensor {quoted(name)}, without which nobody can say which "
            f"latents are "
            f"active; it has {file.describe()}"
        )
    single = file.get(name).shape in ((), (1,))
    shape = list(file.get(name).shape) if single else [n_latents]
    return _finite(file, name, shape).expand(n_latents).contiguous()


def matrix(file: TensorFile, name: str, shape: tuple[int, int]) -> Tensor:
    """The fp32 matrix ``name``, read whole."""
    return _finite(file, name, list(shape))


def _finite(file: TensorFile, name: str, shape: list[int]) -> Tensor:
    stored = file.get(name)
    if list(stored.shape) != shape or stored.dtype not in FLOAT_DTYPES:
        raise InputError(
            f"{file.path}: {name} is {list(stored.shape)} {stored.dtype}; "
            f"expected {shape} floating-point numbers"
        )
    tensor = stored.read().to(torch.float32, copy=True)
    if not tensor.isfinite().all():
        raise InputError(f"{file.path}: {name} is not finite")
    return tensor
